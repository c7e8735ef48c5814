"""Why a bundle is not let in."""

from __future__ import annotations


class VerificationError(Exception):
    """A bundle that is refused; nothing of it is left on the node but the bundle itself.

    Args:
        message: One sentence for people; starts with "cannot".
        code: Stable, in snake_case, for example ``digest_mismatch``.
        field: The member or key that is wrong.
        value: The value that it had, as text.
        rule: The rule that it broke.
    """

    def __init__(self, message: str, *, code: str, field: str = "", value: str = "", rule: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.value = value
        self.rule = rule
