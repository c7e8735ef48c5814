"""The table of drivers: what is there, what is imported, and what is refused."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from agent import drivers, processes
from agent.core import model
from agent.drivers import registry

MODULE = """
from agent.core import model

NAME = "acme.thing"
METHODS = frozenset({model.Method.RESTART})


def make(rooms):
    return rooms
"""


def a_registry(*third_party: str) -> registry.Registry:
    keeper = cast("processes.Keeper", None)  # nothing asks it here
    return registry.Registry(drivers.Rooms(keeper, Path("/run"), Path("/state")), third_party)


def test_the_table_says_what_the_modules_say() -> None:
    for name, (path, methods) in registry.BUILT_IN.items():
        module = importlib.import_module(path)
        assert (name, methods) == (module.NAME, module.METHODS)


def test_a_driver_is_made_once_and_only_when_it_is_used() -> None:
    known = a_registry()
    assert not known.made
    assert known.get("held") is known.get("held")
    assert list(known.made) == ["held"]
    assert known.get("held").capabilities().methods == known.methods("held")


def test_a_node_says_each_driver_and_each_of_its_methods_and_nothing_of_one_that_is_not_installed() -> None:
    said = set(a_registry("nobody.has").capabilities())
    assert {"driver.held", "driver.held.RESTART", "driver.handover.HOT_SWAP", "driver.handover.RESTART"} < said
    assert "driver.held.HOT_SWAP" not in said
    assert not [word for word in said if "nobody" in word]


def test_methods_of_our_own_drivers_are_known_without_an_import() -> None:
    program = (
        "import sys; from agent.drivers import registry; from pathlib import Path; from agent import drivers;"
        "known = registry.Registry(drivers.Rooms(None, Path('/'), Path('/')), ());"
        "known.methods('reload'); known.names;"
        "bad = {'agent.drivers.reload', 'agent.drivers.handover', 'importlib.metadata'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    source = str(Path(drivers.__file__).parents[2])
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": source})


def test_an_unknown_driver_is_the_commands_fault() -> None:
    with pytest.raises(drivers.DriverError, match="cannot use driver 'nope'") as caught:
        a_registry().get("nope")
    assert (caught.value.fault, caught.value.reason) == (model.Fault.COMMAND, "driver_missing")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with two entry points, one of which cannot be imported."""
    (tmp_path / "acme_thing.py").write_text(MODULE)
    folder = tmp_path / "acme-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    points = "acme.thing = acme_thing\nacme.broken = acme_missing\n"
    (folder / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_a_driver_of_somebody_else_is_found_by_its_entry_point_where_the_node_names_it() -> None:
    known = a_registry("acme.thing")
    assert "acme.thing" in known.names
    assert known.methods("acme.thing") == {model.Method.RESTART}
    assert isinstance(known.get("acme.thing"), drivers.Rooms)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("listed", "asked"), [((), "acme.thing"), (("acme.broken",), "acme.broken"), (("acme.gone",), "acme.gone")]
)
def test_what_is_not_named_or_cannot_be_imported_is_missing(listed: tuple[str, ...], asked: str) -> None:
    for verb in (a_registry(*listed).get, a_registry(*listed).methods):
        with pytest.raises(drivers.DriverError, match="cannot use driver") as caught:
            verb(asked)
        assert (caught.value.fault, caught.value.reason) == (model.Fault.COMMAND, "driver_missing")


def test_a_driver_of_somebody_else_cannot_take_the_name_of_ours() -> None:
    assert a_registry("held").get("held").capabilities().methods == {model.Method.RESTART}
    assert importlib.util.find_spec("agent.drivers.held") is not None
