"""What stands in the way, and with which code the command ends."""

from __future__ import annotations

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 7  # as those of `instar`


class DistributionError(Exception):
    """Something could not be done.

    Args:
        message: What, why, and whose fault it is.
        exit_code: What the command ends with.
    """

    def __init__(self, message: str, *, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
