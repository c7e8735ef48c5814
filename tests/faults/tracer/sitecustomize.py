"""Puts strace before a process of the node, once, where the fault that is played asks for it.

Python imports this when it starts, because the stage puts its folder on PYTHONPATH. FAULTS_DIR holds a file for
each role that is to be traced, with strace's arguments, one on each line; who takes the file is traced, later ones are
not. A script whose environment does not reach here has this text in its own, before what it does.
"""

import os
import sys

MODULES = {"tests.faults.led_agent": "agent", "agent.verifier": "verifier", "agent.stager": "stager"}
SCRIPTS = {"up.py": "migration", "down.py": "migration"}
OWNER = "INSTAR_OWNER"  # by which the keeper finds what a child left: the tracer must not have it


def _role() -> str:
    words = sys.orig_argv
    if "-m" not in words[:-1]:
        return SCRIPTS.get(os.path.basename(words[-1]), "")  # noqa: PTH119  # pathlib would cost each process its import
    role = MODULES.get(words[words.index("-m") + 1], "")
    if role != "agent":
        return role
    first = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]
    return "" if "--check" in words else "new_agent" if "/releases/" in first else role


def _trace(directory: str, role: str) -> None:
    order = os.path.join(directory, f"{role}.trace")  # noqa: PTH118  # pathlib would cost each process its import
    taken = f"{order}.{os.getpid()}"
    try:
        os.rename(order, taken)  # noqa: PTH104  # as above
    except FileNotFoundError:
        return
    with open(taken, encoding="utf-8") as file:  # noqa: PTH123  # as above
        arguments = file.read().splitlines()
    # -DDD: the traced process keeps its pid and its parent, the tracer is nobody's child.
    owned = ["-E", f"{OWNER}={os.environ.pop(OWNER)}"] if OWNER in os.environ else []
    os.execv("/usr/bin/strace", ["strace", "-DDD", *owned, *arguments, *sys.orig_argv])  # noqa: S606  # a fixed program


if "FAULTS_DIR" in os.environ and _role():
    _trace(os.environ["FAULTS_DIR"], _role())
