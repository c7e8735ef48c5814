"""Where the store is: what is read of the file and the environment, and that no refusal repeats a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config import settings, stores
from controller.core import errors

PASSWORD = "correct-horse"  # noqa: S105  # it is looked for
LOCAL = "postgresql+psycopg://instar@127.0.0.1:5433/fleet"


def load(tmp_path: Path, text: str, **environment: str) -> stores.PostgreSQL | None:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return settings.load({}, environment, path).store


def test_the_store_is_a_file_where_nothing_else_is_said(tmp_path: Path) -> None:
    assert load(tmp_path, "") is None


def test_the_address_of_a_database_is_shown_without_user_and_password(tmp_path: Path) -> None:
    found = load(
        tmp_path, f'[store]\nurl = "postgresql+psycopg://ann:{PASSWORD}@127.0.0.1:5433/fleet?connect_timeout=1"'
    )
    assert found is not None
    assert (found.shown, found.password_file) == ("127.0.0.1:5433/fleet", None)
    assert f":{PASSWORD}@" in found.url.reveal()
    assert PASSWORD not in repr(found)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    found = load(tmp_path, f'[store]\nurl = "{LOCAL}"\npassword_file = "/word"', INSTAR_STORE_URL=f"{LOCAL}2")
    assert found is not None
    assert (found.shown, found.password_file) == ("127.0.0.1:5433/fleet2", Path("/word"))


@pytest.mark.parametrize(
    "url",
    [
        LOCAL,
        "postgresql+psycopg://instar@localhost/fleet",
        "postgresql+psycopg://instar@[::1]/fleet",
        "postgresql+psycopg:///fleet?host=/run/postgresql",
        "postgresql+psycopg://instar@db.example.org/fleet?sslmode=verify-full",
        "postgresql+psycopg://instar@db.example.org/fleet?sslmode=require",
    ],
)
def test_what_stays_on_this_machine_or_is_encrypted_is_taken(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f'[store]\nurl = "{url}"') is not None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@db.example.org/fleet"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@db.example.org/fleet?sslmode=prefer"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@10.0.0.1/fleet?sslmode=disable"', "store.url"),
        (f'url = "postgresql://ann:{PASSWORD}@127.0.0.1/fleet"', "store.url"),
        (f'url = "mysql://ann:{PASSWORD}@127.0.0.1/fleet"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@127.0.0.1"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@127.0.0.1:nowhere/fleet"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@[::1/fleet"', "store.url"),
        (f'url = "postgresql+psycopg://ann@127.0.0.1/fleet?password={PASSWORD}"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@127.0.0.1/fleet"\npassword_file = "/word"', "store.url"),
        (f'url = "postgresql+psycopg://ann:{PASSWORD}@127.0.0.1/fl\\u0000eet"', "store.url"),
        (f'url = ["{PASSWORD}"]', "store.url"),
        ('password_file = "/word"', "store.password_file"),
        (f'url = "{LOCAL}"\npassword_file = "word"', "store.password_file"),
        (f'url = "{LOCAL}"\npath = "x"', "store.path"),
    ],
)
def test_what_is_wrong_is_refused_by_its_key_and_no_password_is_repeated(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        load(tmp_path, f"[store]\n{text}")
    assert caught.value.field == field
    assert PASSWORD not in f"{caught.value} {caught.value.value}"
