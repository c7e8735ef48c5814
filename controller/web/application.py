"""The ways in: events, alerts, and whether the controller is there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

from starlette import applications, exceptions, requests, responses, routing

from controller import clock, engine
from controller.config import webs
from controller.core import errors, model, secret
from controller.engine import occasions
from controller.web import alerts, answers, bodies, cloud_events, secrets

EVENTS_SENDER = "web:events"  # as the audit log names them
ALERTS_SENDER = "web:alertmanager"
_EVENTS_SECRET = "web.events_secret_file"  # noqa: S105  # the name of a setting
_ALERTS_TOKEN = "web.alertmanager_token_file"  # noqa: S105  # as above
_Work = Callable[[requests.Request], Awaitable[responses.Response]]
_logger = logging.getLogger(__name__)


def check(web: webs.Web) -> None:
    """See that the secrets can be read.

    Raises:
        InvalidRequestError: One cannot.
    """
    for file, field in ((web.events_secret_file, _EVENTS_SECRET), (web.alertmanager_token_file, _ALERTS_TOKEN)):
        if file is not None:
            secrets.read(file, field)


def application(
    web: webs.Web, machine: engine.Engine, time: clock.Clock, attempts: secrets.Attempts
) -> applications.Starlette:
    """Everything that is answered."""
    doors = _Doors(web, machine, time, attempts)
    return applications.Starlette(
        routes=[
            routing.Route("/healthz", _health, methods=["GET"]),
            routing.Route("/v1/events", _answering(doors.events), methods=["POST"]),
            routing.Route("/v1/alertmanager", _answering(doors.alerts), methods=["POST"]),
        ],
        exception_handlers={exceptions.HTTPException: _elsewhere},
    )


async def _health(_: requests.Request) -> responses.Response:
    return responses.JSONResponse({"status": "serving"})


async def _elsewhere(_: requests.Request, error: Exception) -> responses.Response:
    """What nobody answers: another path, another method."""
    found = cast("exceptions.HTTPException", error)  # it is registered for these alone
    return answers.problem(found.status_code, "not_here", f"cannot answer: {found.detail}")


def _answering(work: _Work) -> _Work:
    """Have every error leave as an answer."""

    async def answer(request: requests.Request) -> responses.Response:
        try:
            bodies.check_headers(request)
            return await work(request)
        except errors.InstarError as error:
            return answers.refusal(error)
        except requests.ClientDisconnect:
            return responses.Response(status_code=400)  # nobody is there to read it
        except Exception:
            _logger.exception("cannot answer %s", request.url.path)
            return answers.unexpected()

    return answer


class _Doors:
    """What is done with what comes."""

    def __init__(self, web: webs.Web, machine: engine.Engine, time: clock.Clock, attempts: secrets.Attempts) -> None:
        self._web = web
        self._engine = machine
        self._clock = time
        self._attempts = attempts

    async def events(self, request: requests.Request) -> responses.Response:
        """Take events of a sender that signs."""
        known = _secret(self._web.events_secret_file, _EVENTS_SECRET)
        body = await bodies.read(request)
        async with self._counted(request):
            secrets.check_signature(known, request.headers, body, self._clock.now())
        async with _Kept(self._engine, EVENTS_SENDER):
            found = _followed(lambda: cloud_events.read(request.headers, body))
            receipt = await self._engine.receive(found, actor=EVENTS_SENDER)
        return _receipt([receipt])

    async def alerts(self, request: requests.Request) -> responses.Response:
        """Take the alerts of an Alertmanager."""
        known = _secret(self._web.alertmanager_token_file, _ALERTS_TOKEN)
        async with self._counted(request):
            secrets.check_token(known, request.headers)
        body = await bodies.read(request)
        async with _Kept(self._engine, ALERTS_SENDER):
            found = _followed(lambda: alerts.read(bodies.parse(body)))
            fresh = [one for one in found if not self._is_stale(one)]
            receipts = [await self._engine.receive(some, actor=ALERTS_SENDER) for some in _batches(fresh)]
        return _receipt(receipts, stale=len(found) - len(fresh))

    @contextlib.asynccontextmanager
    async def _counted(self, request: requests.Request) -> AsyncIterator[None]:
        """Count who shows a wrong secret, and slow down where many come from; one that is right passes at once."""
        peer = request.client.host if request.client else ""
        try:
            yield
        except errors.UnauthenticatedError:
            await self._attempts.wait(peer)
            self._attempts.failed(peer)
            raise

    def _is_stale(self, event: model.ReceivedEvent) -> bool:
        """Tell whether an alert began so long ago that it is no occasion any more; others that come with it are."""
        return event.at is not None and event.at < self._clock.now() - occasions.AGE_MAX


class _Kept:
    """Puts on the record what a known sender is refused, as the door of the other side does."""

    def __init__(self, machine: engine.Engine, actor: str) -> None:
        self._engine = machine
        self._asked = engine.Asked(actor, "send_events", None)

    async def __aenter__(self) -> None:
        """Do nothing yet."""

    async def __aexit__(self, kind: object, error: BaseException | None, at: object) -> None:
        """Keep it, unless it is kept already; that it cannot be kept does not change the answer."""
        if not isinstance(error, errors.InstarError):
            return
        try:
            await self._engine.keep_refusal(self._asked, error)
        except errors.InstarError:
            _logger.exception("cannot keep that %s was refused", self._asked.actor)


def _secret(file: Path | None, field: str) -> secret.Secret[bytes]:
    """What a sender has to know.

    Raises:
        NotFoundError: This way in is not configured.
        UnavailableError: The secret cannot be read.
    """
    if file is None:
        raise errors.NotFoundError(
            f"cannot take it: {field} is not configured", code="not_configured", field=field, rule="a file"
        )
    try:
        return secrets.read(file, field)
    except errors.InvalidRequestError as error:
        _logger.exception("cannot let anybody in")
        raise errors.UnavailableError(
            f"cannot take it now: {field} cannot be read", code="secret_unreadable", field=field, rule=error.rule
        ) from error


def _followed(read: Callable[[], Sequence[model.ReceivedEvent]]) -> Sequence[model.ReceivedEvent]:
    """Read what may be nested more deeply than anybody can write again."""
    try:
        return read()
    except RecursionError as fault:
        raise errors.InvalidRequestError(
            "cannot take the body: it is nested too deeply",
            code="body_invalid",
            field="body",
            rule="nested less deeply",
        ) from fault


def _batches(events: Sequence[model.ReceivedEvent]) -> Iterator[Sequence[model.ReceivedEvent]]:
    """As many at once as the engine takes; one at least, which says that the triggers are active."""
    for begin in range(0, max(len(events), 1), occasions.EVENTS_MAX):
        yield events[begin : begin + occasions.EVENTS_MAX]


def _receipt(receipts: Sequence[occasions.Receipt], stale: int = 0) -> responses.Response:
    return responses.JSONResponse(
        {
            "accepted": sum(one.accepted for one in receipts),
            "duplicates": sum(one.duplicates for one in receipts),
            "stale": stale,
            "firings": [each for one in receipts for each in one.firings],
        }
    )
