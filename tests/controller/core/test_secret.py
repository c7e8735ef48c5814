"""What nobody can do with a secret by accident; the same for the one of agents."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import Any

import pytest

from controller.core import secret

CANARY = "hunter2-hunter2"


def ways(hidden: Any) -> list[str]:  # noqa: ANN401  # a secret of either side
    """Text that somebody may make of it."""
    return [
        str(hidden),
        repr(hidden),
        f"{hidden}",
        f"{hidden:>40}",
        f"{hidden!r}",
        "%s %r" % (hidden, hidden),  # noqa: UP031  # what loggers do
        f"{hidden} {hidden!s:.3}",  # one more way
        str([hidden]),
        str({"token": hidden}),
        str(ValueError(hidden)),
    ]


def of_agents() -> Any:  # noqa: ANN401  # the agent's own class, which shares no code with this one
    from agent.core import secret as agent_secret  # noqa: PLC0415  # beside the other

    return agent_secret.Secret


@pytest.mark.parametrize("kind", [secret.Secret, of_agents()])
@pytest.mark.parametrize("value", [CANARY, CANARY.encode()])
def test_no_text_that_is_made_of_a_secret_tells_it(kind: Any, value: str | bytes) -> None:  # noqa: ANN401
    hidden = kind(value)
    assert not any("hunter" in text for text in ways(hidden))
    assert f"{hidden}" == secret.HIDDEN
    assert hidden.reveal() == value


@pytest.mark.parametrize("kind", [secret.Secret, of_agents()])
def test_a_secret_is_neither_written_down_nor_copied_nor_looked_into(kind: Any) -> None:  # noqa: ANN401
    hidden = kind(CANARY)
    for way in (pickle.dumps, json.dumps, copy.copy, copy.deepcopy, bytes, list, len, hash, vars):
        with pytest.raises(TypeError) as caught:
            way(hidden)
        assert "hunter" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(TypeError):
        "Bearer " + hidden


@pytest.mark.parametrize("kind", [secret.Secret, of_agents()])
def test_secrets_are_compared_by_what_they_are(kind: Any) -> None:  # noqa: ANN401
    assert kind(CANARY) == kind(CANARY)
    assert kind(CANARY.encode()) == kind(CANARY.encode())
    assert kind(CANARY) != kind("other")
    assert kind("é") == kind("é")
    assert kind(CANARY) != CANARY


def test_a_secret_is_logged_as_stars(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("the token is %s", secret.Secret(CANARY))
    assert caplog.messages == ["the token is ***"]
