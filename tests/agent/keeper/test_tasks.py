"""Commands that run once, secrets, users and environments."""

import dataclasses
import os
import pwd
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from agent.keeper import digest, specification
from agent.keeper import processes as kernel
from tests.agent.keeper import node
from tests.agent.keeper.test_groups import DAEMONS, WITHOUT_CGROUPS
from tests.agent.keeper.test_instances import refused

TELLS = """
import os, pathlib, stat, sys
folder = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"])
for path in (folder, *sorted(folder.iterdir())):
    print(path.name, oct(stat.S_IMODE(path.stat().st_mode)), path.stat().st_uid)
print((folder / "key").read_text(), os.getuid(), os.environ.get("USER"), flush=True)
"""


SDK_OF_OTHERS = all(folder.stat().st_mode & stat.S_IXOTH for folder in (specification.SDK, *specification.SDK.parents))
SYSTEM_PYTHON = Path("/usr/bin/python3")  # that another user may run, wherever ours lies
as_others = pytest.mark.skipif(
    os.geteuid() != 0 or not SYSTEM_PYTHON.exists(),
    reason="needs the right to become another user, and a Python for it",
)
with_sdk = pytest.mark.skipif(not SDK_OF_OTHERS, reason="the SDK lies where no other user may read it")


def task(made: node.Node, source: str, **more: object) -> processes.Task:
    """Make a task of a release of its own."""
    spec = made.release("1.0.0", source=source, mode=0o755)
    fields = {name: getattr(spec, name) for name in ("component", "version", "digest", "release_dir", "command")}
    return processes.Task(**{"timeout": timedelta(seconds=20), **fields, **more})


def _open_to_others(made: node.Node) -> None:
    for folder in (made.run.parent, made.state, made.state / "releases"):
        folder.chmod(0o755)


def configured(made: node.Node, text: str) -> Path:
    """Start the keeper again with a configuration."""
    path = made.state / "agent.toml"
    path.write_text(text)
    made.kill()
    made.start(config=path)
    return path


async def test_it_answers_with_the_exit_and_the_end_of_the_output(a_node: node.Node) -> None:
    keeper = await a_node.client()
    source = (
        "import sys\nprint('x' * 20000)\nprint('out', flush=True)\nprint(sys.argv[1], file=sys.stderr)\nsys.exit(7)"
    )
    wanted = task(a_node, source, command=["python", "app.py", "err"])
    end = await keeper.run(wanted)
    assert (end.exit_code, end.signal, end.is_timeout) == (7, None, False)
    assert end.output.endswith("x\nout\nerr\n")
    assert len(end.output) == 16 << 10
    (wanted.release_dir / "app.py").write_text("print('not what was checked')")
    with refused("digest_mismatch"):
        await keeper.run(wanted)
    assert list(a_node.run.glob("task-*")) == []


async def test_a_repeated_task_does_not_read_its_release_each_time_but_a_start_does(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    wanted = task(a_node, "print('one')", is_repeated=True)
    assert (await keeper.run(wanted)).output == "one\n"
    (wanted.release_dir / "app.py").write_text("print('two')")
    assert (await keeper.run(wanted)).output == "two\n"  # within a minute
    with refused("digest_mismatch"):
        await keeper.run(dataclasses.replace(wanted, is_repeated=False))
    with refused("digest_mismatch"):
        await keeper.run(wanted)


async def test_a_start_always_reads_its_release_and_spares_the_probes_that_follow(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0")
    await keeper.start(spec)
    probe = processes.Task(
        component="web",
        version="1.0.0",
        digest=spec.digest,
        release_dir=spec.release_dir,
        command=["python", "-c", "print('well')"],
        timeout=timedelta(seconds=20),
        is_repeated=True,
    )
    (spec.release_dir / "app.py").write_text("print('not what was checked')")
    assert (await keeper.run(probe)).output == "well\n"
    with refused("digest_mismatch"):
        await keeper.start(dataclasses.replace(spec, id="web-other"))
    with refused("digest_mismatch"):
        await keeper.run(probe)


@pytest.mark.parametrize("within", [(), WITHOUT_CGROUPS])
async def test_when_its_time_is_over_everything_that_it_started_is_killed(
    a_node: node.Node, within: tuple[str, ...]
) -> None:
    a_node.kill()
    a_node.start(within=within)
    keeper = await a_node.client()
    end = await keeper.run(task(a_node, DAEMONS, timeout=timedelta(seconds=1)))
    assert (end.exit_code, end.signal, end.is_timeout) == (None, 9, True)
    assert node.is_over(int(end.output))


@as_others
async def test_secrets_are_files_of_its_user_alone_and_go_away_with_it(a_node: node.Node) -> None:
    secret = a_node.state / "secret"
    secret.write_text("hunter2")
    nobody = pwd.getpwnam("nobody")
    _open_to_others(a_node)
    text = f'[secrets.web]\nkey = "{secret}"\n\n[users]\nweb = "nobody"\n'
    configured(a_node, text)
    keeper = await a_node.attached()
    expected = ["key 0o400 65534", "hunter2 65534 nobody"]
    source = f"#!{SYSTEM_PYTHON}\n{TELLS}"
    end = await keeper.run(task(a_node, source, secrets=["key"], command=["app.py"]))
    assert end.exit_code == 0, end.output
    assert end.output.splitlines()[0].endswith(f".cred 0o500 {nobody.pw_uid}")
    assert end.output.splitlines()[1:] == expected
    spec = a_node.release("1.0.0", source=f"{source}\nimport time\ntime.sleep(600)", mode=0o755)
    spec = dataclasses.replace(spec, protocol=processes.Protocol.PLAIN, secrets=["key"], command=["app.py"])
    await keeper.start(spec)
    folder = a_node.run / f"{spec.id}.cred"
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o400
    with refused("secret_missing"):
        await keeper.start(dataclasses.replace(spec, id="web-other", secrets=["key", "other"]))
    assert [path.name for path in a_node.run.glob("*.cred")] == [folder.name]
    await keeper.stop(spec.id, timedelta(seconds=1))
    assert list(a_node.run.glob("*.cred")) == []


@as_others
async def test_the_agent_runs_as_its_user_and_reaches_the_keeper_and_no_secret(a_node: node.Node) -> None:
    _open_to_others(a_node)
    configured(a_node, 'agent_user = "nobody"\n')
    socket_path = a_node.run / "keeper.sock"
    await a_node.client()
    connects = "import os, socket, sys; os.setuid(65534); socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    subprocess.run([sys.executable, "-c", connects, str(socket_path)], check=True, timeout=node.PATIENCE_SECONDS)
    refused_to = subprocess.run(
        [sys.executable, "-c", connects.replace("65534", "65533"), str(socket_path)],
        check=False,
        capture_output=True,
        timeout=node.PATIENCE_SECONDS,
    )
    assert b"PermissionError" in refused_to.stderr
    assert socket_path.stat().st_uid == 65534


@as_others
@with_sdk
async def test_a_handover_component_of_another_user_is_spoken_to(a_node: node.Node) -> None:
    _open_to_others(a_node)
    configured(a_node, '[users]\nweb = "nobody"\n')
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0", source=f"#!{SYSTEM_PYTHON}\n{node.WEB_SERVICE.read_text()}", mode=0o755)
    made = await node.prepared(keeper, dataclasses.replace(spec, command=["app.py"]))
    await keeper.say(made.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    made = await node.find(keeper, made.id)
    assert kernel.user_of(made.pid) == 65534
    assert made.state is processes.InstanceState.ACTIVE


async def test_python_is_that_of_the_environment_once_its_content_was_checked(a_node: node.Node) -> None:
    keeper = await a_node.client()
    wanted = task(a_node, "import sys; print(sys.prefix)")
    venv = a_node.state / "environments" / wanted.release_dir.name
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    wanted = dataclasses.replace(wanted, environment_dir=venv)
    with refused("digest_mismatch"):
        await keeper.run(wanted)
    venv.with_name(f"{venv.name}.digest").write_text(digest.environment_digest(venv))
    end = await keeper.run(wanted)
    assert (end.exit_code, end.output.strip()) == (0, str(venv))
    (venv / "pyvenv.cfg").write_text("home = /elsewhere\n")
    with refused("digest_mismatch"):
        await keeper.run(wanted)
    with refused("environment_outside"):
        await keeper.run(dataclasses.replace(wanted, environment_dir=a_node.state))


async def test_staging_runs_as_a_child_and_its_words_come_back(a_node: node.Node) -> None:
    keeper = await a_node.client()
    verdict = await keeper.stage(f"sha256:{'0' * 64}")
    assert verdict.exit_code not in (0, None)
    assert verdict.output
