"""What is wrong with a file or value that somebody wrote for this node."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration, manifest or name that cannot be used; it changes nothing.

    Args:
        message: One sentence for people; starts with "cannot".
        field: The key that is wrong, in dotted form, for example ``health.period``.
        value: The value that it had, as text.
        rule: The rule that it broke.
    """

    def __init__(self, message: str, *, field: str = "", value: str = "", rule: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.value = value
        self.rule = rule
