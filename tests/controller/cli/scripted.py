"""The command line in this process, before a controller that answers what the test has prepared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.cli import application, connection


@dataclass
class Controller:
    """Answers by the name of the method, and notes what it was asked."""

    answers: dict[str, object]
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def answer(self, _address: str, _token_file: Path | None, method: str, request: object) -> object:
        self.asked.append((method, request))
        return self.answers[method]

    @property
    def last(self) -> Any:  # noqa: ANN401  # the test knows what it asked
        """The last request."""
        return self.asked[-1][1]


@contextmanager
def controller(**answers: object) -> Iterator[Controller]:
    """Answer, while the block runs, by methods as in ``fleet_ListNodes``."""
    found = Controller({name.replace("_", ".", 1): answer for name, answer in answers.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "answer", found.answer)
        yield found


def instar(*arguments: str | Path) -> int:
    """Run a command; what it prints goes where the test captures it."""
    return application.run([str(one) for one in arguments])
