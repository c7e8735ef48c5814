"""How a command ends that did not do what was asked: one line on stderr, and an exit code.

Rules kept here: 2 is for syntax and local files, 8 for whatever the controller refuses; an error that carries a field
names it. Left out: the outcome of a rollout (`watching`) and of a plan (`upgrade_commands`), which are no errors.
"""

from __future__ import annotations

from enum import IntEnum, unique

from controller.core import errors


@unique
class Exit(IntEnum):
    """The exit codes; scripts depend on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ROLLED_BACK = 3
    PAUSED = 4
    CANCELLED = 5
    WAIT_TIMED_OUT = 6
    UNREACHABLE = 7
    REFUSED = 8
    HAS_CHANGES = 10


class CommandError(Exception):
    """A command cannot go on.

    Args:
        message: One sentence for people; starts with "cannot".
        exit_code: What the command ends with.
        error: What is behind it, where that is known.
    """

    def __init__(self, message: str, exit_code: Exit, error: errors.InstarError | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.error = error


def local(error: errors.InstarError) -> CommandError:
    """What an error means that arose on this side, before or without a controller."""
    is_ours = isinstance(error, errors.InvalidRequestError | errors.NotFoundError)
    return CommandError(sentence(error), Exit.USAGE if is_ours else _code(error))


def of_controller(error: errors.InstarError) -> CommandError:
    """What an error means that a controller answered, or that stands for no answer."""
    return CommandError(sentence(error), _code(error), error)


def usage(field: str, value: str, rule: str) -> CommandError:
    """An argument that breaks its rule."""
    text = f"cannot use {field} {value!r}: it must be {rule}"
    wrong = errors.InvalidRequestError(text, code="argument_invalid", field=field, value=value, rule=rule)
    return CommandError(text, Exit.USAGE, wrong)


def sentence(error: errors.InstarError) -> str:
    """The message of an error, with its field where the message does not name it."""
    message = str(error)
    return message if error.field in message else f"{message} (field {error.field})"


def _code(error: errors.InstarError) -> Exit:
    if isinstance(error, errors.UnavailableError) and not isinstance(error, errors.ExhaustedError):
        return Exit.UNREACHABLE
    return Exit.REFUSED if error.blame is errors.Blame.CALLER or error.is_retryable else Exit.FAILED
