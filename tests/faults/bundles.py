"""Bundles of the scenarios whose component is more than the live service: with state, with a Python environment.

Rules kept here: a bundle has the same bytes on each node, so that what it is called in a saved state stays true.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.agent import live_node, wheels

TRACER = Path(__file__).parent / "tracer" / "sitecustomize.py"
STATE_FILES: Mapping[int, str] = {1: "lines.txt", 2: "lines.jsonl"}  # by schema
LEDGER_MANIFEST = """\
name = "web"
version = "{version}"
driver = "held"
command = ["python", "ledger.py"]
prepare_timeout = "10s"
stop_timeout = "5s"
[environment]
SCHEMA = "{schema}"
[[sockets]]
name = "http"
[readiness]
http.path = "/healthz"
period = "0.1s"
[health]
http.path = "/healthz"
period = "0.2s"
[state]
schema = {schema}
snapshot = true
{migrations}"""
MIGRATIONS = """\
[[state.migrations]]
from_schema = 1
to_schema = 2
command = ["python", "up.py"]
[[state.migrations]]
from_schema = 2
to_schema = 1
command = ["python", "down.py"]
"""
LEDGER = Path(__file__).with_name("ledger.py").read_bytes()
# The folder of faults lies beside the state directory; a migration has neither of our variables.
BEGIN = """\
import json, os, pathlib
state = pathlib.Path(os.environ["STATE_DIRECTORY"])
os.environ["FAULTS_DIR"] = str(state.parents[3] / "faults")
"""
UP = """
with (state / "lines.jsonl").open("w", buffering=1) as made:
    for line in (state / "lines.txt").read_text().split():
        made.write(json.dumps({"n": int(line)}) + "\\n")
(state / "lines.txt").unlink()
"""
DOWN = """
with (state / "lines.txt").open("w", buffering=1) as made:
    for line in (state / "lines.jsonl").read_text().splitlines():
        made.write(f"{json.loads(line)['n']}\\n")
(state / "lines.jsonl").unlink()
"""
PYTHON = """\
[python]
requirements = "requirements.txt"
wheelhouse = "wheels"
"""
WHEELS = dict([wheels.wheel("alpha", "2.0", "WORD = 'two'\ndef main(): print(WORD)\n")])
IMPORT = b"import alpha\n"


def ledger(version: str, schema: int) -> tuple[str, Mapping[str, bytes]]:
    """Make a service that remembers each request; from schema 2 on it knows the ways from and to schema 1."""
    migrations = MIGRATIONS if schema > 1 else ""
    manifest = LEDGER_MANIFEST.format(version=version, schema=schema, migrations=migrations)
    if schema == 1:
        return manifest, {"ledger.py": LEDGER}
    traced = BEGIN + TRACER.read_text()
    return manifest, {"ledger.py": LEDGER, "up.py": (traced + UP).encode(), "down.py": (traced + DOWN).encode()}


def with_environment(version: str) -> tuple[str, Mapping[str, bytes]]:
    """Make the live service over a package that only its own environment has."""
    times = {"prepare_timeout": "10s", "drain_timeout": "5s"}
    manifest = live_node.MANIFEST.format(version=version, environment="", extra=PYTHON, **times)
    files = {"service.py": IMPORT + live_node.SERVICE, "requirements.txt": wheels.lock(WHEELS).encode()}
    return manifest, {**files, **{f"wheels/{name}": data for name, data in WHEELS.items()}}
