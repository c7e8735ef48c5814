"""Whose fault it is that a step could not be done: each error that one can meet, turned into one kind.

Rules kept here: only what the release itself did wrong is the version's fault. Left out: what follows (the machine).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agent import depot, drivers, processes
from agent.config.errors import ConfigError
from agent.core import model


class StepError(Exception):
    """A step did not do what it should.

    Args:
        reason: Stable, in snake_case.
        is_decided: True when the keeper has gone back: COMMIT can not come any more.
    """

    def __init__(self, message: str, *, fault: model.Fault, reason: str, is_decided: bool = False) -> None:
        super().__init__(message)
        self.fault = fault
        self.reason = reason
        self.is_decided = is_decided


@contextlib.contextmanager
def told(step: model.Step) -> Iterator[None]:
    """Turn whatever stands in the way of a step into a `StepError`."""
    try:
        yield
    except drivers.DriverError as error:
        raise StepError(str(error), fault=error.fault, reason=error.reason) from error
    except processes.KeeperError as error:
        raise StepError(error.message, fault=model.Fault.INFRASTRUCTURE, reason=error.code) from error
    except depot.DepotError as error:
        raise StepError(str(error), fault=model.Fault.INFRASTRUCTURE, reason=error.code) from error
    except ConfigError as error:
        raise StepError(str(error), fault=model.Fault.VERSION, reason="manifest_invalid") from error
    except OSError as error:
        message = f"cannot do {step.value}: {error}"
        raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="host_failed") from error
