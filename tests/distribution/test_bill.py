"""The bill of materials: it is one by its schema, and says of the lock what is true."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from controller.packaging.distribution import bill, building, errors, lock

LOCK = (building.ROOT / "requirements.lock").read_text(encoding="utf-8")
MADE_AT = datetime(2026, 1, 2, tzinfo=UTC)
HASHED = f"--hash=sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def text() -> str:
    return bill.document(lock.read(LOCK), "0.1.0", MADE_AT)


@pytest.fixture(scope="module")
def document(text: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(text)
    return read


def test_it_is_one_by_its_schema(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_names_every_pin_with_every_hash_and_nothing_else(document: dict[str, Any]) -> None:
    named = {
        (part["name"], part["version"]): {each["content"] for each in part["externalReferences"][0]["hashes"]}
        for part in document["components"]
    }
    assert named == {(pin.name, pin.version): set(pin.hashes) for pin in lock.read(LOCK)}
    assert sum(len(hashes) for hashes in named.values()) == LOCK.count("--hash=sha256:")
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in document["components"])


def test_scopes_say_what_comes_with_an_agent_with_a_controller_and_in_development_alone(
    document: dict[str, Any],
) -> None:
    scopes = {part["name"]: part["scope"] for part in document["components"]}
    assert {name for name, scope in scopes.items() if scope == "required"} == {
        *("cffi", "cryptography", "grpcio", "protobuf", "psutil"),
        *("pycparser", "securesystemslib", "tuf", "typing-extensions", "urllib3"),
    }
    assert {scopes[name] for name in ("sqlalchemy", "numpy", "pyjwt", "mako")} == {"optional"}
    assert {scopes[name] for name in ("pytest", "iniconfig", "ruff", "cyclonedx-python-lib")} == {"excluded"}


def test_it_says_who_needs_whom_over_extras_and_for_other_platforms_too(document: dict[str, Any]) -> None:
    needs = {each["ref"].partition("@")[0]: each.get("dependsOn", []) for each in document["dependencies"]}
    names = {name: {one.partition("@")[0] for one in needed} for name, needed in needs.items()}
    assert names["tuf"] == {"securesystemslib", "urllib3"}
    assert "colorama" in names["pytest"]
    assert {"sqlalchemy", "pytest", "grpcio"} <= names["instar"]
    markers = {part["name"]: part.get("properties", []) for part in document["components"]}
    assert markers["colorama"] == [{"name": "instar:marker", "value": 'sys_platform == "win32"'}]


def test_the_same_lock_gives_the_same_bytes_and_another_one_another_number(text: str) -> None:
    assert bill.document(lock.read(LOCK), "0.1.0", MADE_AT) == text
    other = bill.document(lock.read(LOCK.replace("sha256:0", "sha256:1", 1)), "0.1.0", MADE_AT)
    assert json.loads(other)["serialNumber"] != json.loads(text)["serialNumber"]


def test_a_pin_that_nobody_needs_is_an_error() -> None:
    with pytest.raises(errors.DistributionError, match=r"^cannot say who needs stranger: "):
        bill.document(lock.read(f"{LOCK}\nstranger==1.0 {HASHED}\n"), "0.1.0", MADE_AT)


@pytest.mark.parametrize(
    "line", ["web==1.0", f"web>=1.0 {HASHED}", f"web {HASHED}", f"-e . {HASHED}", "web==1.0 --hash=md5:00"]
)
def test_a_line_that_is_no_pin_with_hashes_is_an_error(line: str) -> None:
    with pytest.raises(errors.DistributionError, match=r"^cannot read the lock: "):
        lock.read(line)
