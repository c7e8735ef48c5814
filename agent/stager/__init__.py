"""The disposable child that makes the virtual environment of a release, before anything is stopped.

Rules kept here: every package is pinned and hash-locked by the bundle itself, and is a wheel; nothing of it runs while
it is installed; what comes out is made durable, measured, and appears by one rename, or not at all. This module is what
its caller needs: the codes, and what they mean. Left out: starting it (`agent.keeper`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from agent.core import model

FAULT_OF_CODE = {
    "uv_missing": model.Fault.INFRASTRUCTURE,
    "disk_failed": model.Fault.INFRASTRUCTURE,
    "release_missing": model.Fault.INFRASTRUCTURE,
    "config_invalid": model.Fault.INFRASTRUCTURE,
    "index_failed": model.Fault.INFRASTRUCTURE,
    "index_missing": model.Fault.COMMAND,
    "manifest_invalid": model.Fault.VERSION,
    "requirements_invalid": model.Fault.VERSION,
    "requirements_not_met": model.Fault.VERSION,
}


class StagingError(Exception):
    """An environment that could not be made; nothing of it is left.

    Args:
        reason: Stable, in snake_case: a key of `FAULT_OF_CODE`, or ``stager_failed``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def fault(self) -> model.Fault:
        """Whose fault it is; the host's where the child did not live to say."""
        return FAULT_OF_CODE.get(self.reason, model.Fault.INFRASTRUCTURE)


def read_answer(exit_code: int | None, output: str) -> Mapping[str, str]:
    """Read what the child printed, as evidence.

    Raises:
        StagingError: It made no environment; says whose fault that is.
    """
    try:
        document = json.loads(output)
        if exit_code == 0:
            return {str(key): str(value) for key, value in document["environment"].items()}
        error = cast("Mapping[str, str]", document["error"])
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        message = f"cannot make the environment: the stager ended with {exit_code}"
        raise StagingError(message, reason="stager_failed") from cause
    raise StagingError(message, reason=code)
