"""What can be wrong, told by whose fault it is and whether trying again helps.

Every refusal is one of these: it names the field, the value and the rule, and its message starts with "cannot".
An error changes nothing; the edges turn it into a status code and an exit code, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import Enum, unique


@unique
class Blame(Enum):
    """Who has to do something about an error."""

    CALLER = "caller"
    NODE = "node"
    CONTROLLER = "controller"
    SOURCE = "source"


class InstarError(Exception):
    """Something that cannot be done.

    Args:
        message: One sentence for people; starts with "cannot".
        code: Stable, in snake_case, for example ``release_not_found``.
        field: The field that is wrong, in dotted form, for example ``policy.max_failures``.
        value: The value that it had, as text.
        rule: The rule that it broke.

    ``is_kept`` tells whether it is on the record already, so that it gets there once, however many hands it passes.
    """

    blame = Blame.CONTROLLER
    is_retryable = False
    is_kept = False

    def __init__(self, message: str, *, code: str, field: str = "", value: str = "", rule: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.value = value
        self.rule = rule


class InvalidRequestError(InstarError):
    """The request is wrong in itself; the same request is wrong for ever."""

    blame = Blame.CALLER


class InvalidFieldsError(InvalidRequestError):
    """Several things are wrong with a request in itself; the first of them stands for all.

    Args:
        problems: What is wrong, at least one thing.
    """

    def __init__(self, message: str, problems: Sequence[InvalidRequestError]) -> None:
        first = problems[0]
        super().__init__(message, code=first.code, field=first.field, value=first.value, rule=first.rule)
        self.problems = tuple(problems)


class NotFoundError(InstarError):
    """The request names something that does not exist."""

    blame = Blame.CALLER


class RefusedError(InstarError):
    """The request is well-formed, but the state of things does not allow it."""

    blame = Blame.CALLER


class UnauthenticatedError(InstarError):
    """The caller did not show who it is."""

    blame = Blame.CALLER


class UnavailableError(InstarError):
    """The controller cannot do it now; the same request may work later."""

    is_retryable = True


class ExhaustedError(UnavailableError):
    """The caller asks more than it may; the same request may be granted later.

    Args:
        retry_after: For so long it is of no use to ask again.
    """

    blame = Blame.CALLER

    def __init__(self, message: str, *, code: str, field: str, rule: str, retry_after: timedelta) -> None:
        super().__init__(message, code=code, field=field, rule=rule)
        self.retry_after = retry_after


class ConflictError(InstarError):
    """Somebody else changed the same state first; read again and decide again."""

    is_retryable = True


class IllegalEventError(InstarError):
    """An event that its state machine does not allow in this state; nothing changed."""


class SourceError(UnavailableError):
    """A source of metrics gave no answer that counts: what was asked for is unknown, and nobody's version is at fault.

    Args:
        source: Name of the configured server.
        blame: SOURCE where the server is to be mended, CONTROLLER where it is the configuration, CALLER where it is the
            query.
        is_retryable: Whether the same question may be answered later.
    """

    def __init__(self, message: str, *, code: str, source: str, blame: Blame, is_retryable: bool) -> None:
        super().__init__(message, code=code, field="source", value=source, rule="a complete answer in time")
        self.blame = blame
        self.is_retryable = is_retryable
