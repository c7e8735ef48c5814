"""The controller put together: store, engine, servers; and taken apart again in order.

Rules kept here: the store is opened first, so that a second controller changes nothing, or stands by; who leads no
longer stops serving and stands by again; what works in the background starts in order and is taken back where a part of
it fails. Left out: what the parts do.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence

from controller import activation, clock, cycles, engine, releases, tasks
from controller.config import settings, traces
from controller.core import errors, roles
from controller.engine import enrolling
from controller.metrics import limits, prometheus
from controller.rpc import access, attempts, callers, door, issuers, principals, register, release_service
from controller.rpc import serving as rpc_serving
from controller.store import database, leading, standing
from controller.telemetry import logs
from controller.trust import clients, listening, private_files, unsigned
from controller.trust import peers as trust_peers

OPERATOR = "operator"  # the API principal that a first start makes
OPERATOR_DAYS = 365  # of its certificate, which lies beside the authorities' keys and is made anew at each start
# What is over by itself on a database that others reach too.
_PASSING = frozenset({leading.LEASE_LOST, "store_unavailable", "outcome_unknown"})
_logger = logging.getLogger(__name__)


def run(loaded: settings.Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        loaded: The settings.
        ready: Told once where the controller listens, when it serves.

    Raises:
        RefusedError: Another controller uses the store or the address.
    """
    logs.write_json()
    cycles.seek_seldom()
    asyncio.run(_run(loaded, ready))


async def _run(loaded: settings.Settings, ready: Callable[[str], None]) -> None:
    running, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert running is not None  # noqa: S101  # a coroutine that runs is in a task

    def stop() -> None:
        _logger.info("stopping")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # who asks once more does not wait for an end in order
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await _lead(loaded, await _opened(loaded), ready)
        while True:
            say = functools.partial(_logger.info, "leads again, and listens on %s")
            await _lead(loaded, await _opened(loaded, is_patient=True), say)


async def _opened(loaded: settings.Settings, *, is_patient: bool = False) -> database.Store:
    loaded.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return await standing.opened(loaded.store_place, is_patient=is_patient)


async def _lead(loaded: settings.Settings, store: database.Store, ready: Callable[[str], None]) -> None:
    """Serve until cancelled, or until another controller has taken over or a start found the database away."""
    try:
        async with serving(loaded, store) as address:
            ready(address)
            await asyncio.get_running_loop().create_future()
    except errors.UnavailableError as error:
        if loaded.store is None or error.code not in _PASSING:
            raise
        _logger.warning("stands by again: %s", error)


@contextlib.asynccontextmanager
async def serving(loaded: settings.Settings, opened: database.Store | None = None) -> AsyncIterator[str]:
    """A controller that serves while the block runs; yields where it listens.

    Raises:
        RefusedError: Another controller uses the store or the address.
    """
    store = opened or await _opened(loaded)
    time = clock.SystemClock()
    with contextlib.closing(store):
        own = _own_certificate(loaded, time)
        enrolled = register.Register(loaded.principals_file)
        _let_operator_in(loaded, enrolled, own, time)
        kept = limits.Limits(loaded.metrics_window, loaded.metrics_past, loaded.metrics_step, loaded.metrics_retention)
        servers = {each.name: prometheus.Prometheus(each) for each in loaded.prometheus}
        machine = engine.Engine(
            store,
            time,
            clock.RandomIds(),
            heartbeat_period=loaded.heartbeat_period,
            kept=kept,
            requester_may_approve=loaded.self_approval,
            servers=servers,
            monitoring=loaded.monitor,
            retained=loaded.retention,
        )
        blobs = releases.Blobs(loaded.bundles_dir)
        trust, signing = _trust(loaded, time)
        desk = _desk(loaded, store, own, machine, time)
        issued = issuers.Issuers(loaded.issuers, time)
        peers = None if own is None else trust_peers.Peers(lambda: own.known, time.now)
        guards = door.guards(
            callers.Callers(enrolled, issued, time, peers), machine, loaded.quotas, time, machine.pressure
        )
        rooms = rpc_serving.Rooms(machine, blobs, guards, enrolled, time, trust, own, desk)
        async with (
            _emitting(store, loaded.traces),
            _started(machine),
            _activated(_stages(machine, loaded, *signing)),
            _guarded(guards, issued, machine),
            _telling(access.Watch(machine.note_access, enrolled, None if own is None else lambda: own.known), loaded),
            rpc_serving.serving(loaded, rooms) as address,
            _on_the_web(loaded, machine, time, own),
            standing.leading(store),
        ):
            yield address


@contextlib.asynccontextmanager
async def _emitting(store: database.Store, to: traces.Traces | None) -> AsyncIterator[None]:
    """Send spans while the block runs, where an endpoint is configured; else nothing of it is even imported."""
    if to is None:
        yield
        return
    from controller.telemetry import emit  # noqa: PLC0415  # as the line above says

    emitter = emit.Emitter(store, to)
    guard = tasks.Guard()
    guard.start(emitter.run(), "span emitter")
    try:
        yield
    finally:
        await guard.stop()
        await emitter.close()


@contextlib.asynccontextmanager
async def _started(machine: engine.Engine) -> AsyncIterator[None]:
    await machine.start()
    try:
        yield
    finally:
        await machine.stop()


def _trust(loaded: settings.Settings, time: clock.Clock) -> tuple[release_service.Trust, Sequence[activation.Stage]]:
    """What vouches for releases, and what of it works in the background; where none is configured, nothing does."""
    if loaded.trust_dir is None:
        _logger.warning(unsigned.WARNING)
        return unsigned.Unsigned(), ()
    from controller.trust import keeping  # noqa: PLC0415  # the libraries of signatures only where there are any

    logging.getLogger("tuf").setLevel(logging.WARNING)  # else it tells of each key that did not sign, which is no news
    kept = keeping.Trust(loaded.metadata_dir, loaded.trust_dir, time)
    return kept, (activation.Stage("trust", kept.start, kept.stop),)


def _stages(machine: engine.Engine, loaded: settings.Settings, *signing: activation.Stage) -> activation.Activation:
    """What works in the background, in the order in which it starts."""
    collector, monitor = machine.collector, machine.monitoring
    period = loaded.heartbeat_period
    return activation.Activation(
        *signing,
        activation.Stage("collector", lambda: collector.start_collection(period), collector.stop_collection),
        activation.Stage("monitor", monitor.start, monitor.stop),
        activation.Stage("triggers", machine.start_triggers, machine.stop_triggers),
    )


@contextlib.asynccontextmanager
async def _activated(stages: activation.Activation) -> AsyncIterator[None]:
    """Have every stage run while the block does; what cannot be stopped properly at the end is logged."""
    await stages.activate()
    try:
        yield
    finally:
        with contextlib.suppress(errors.UnavailableError):
            await stages.deactivate()


def _desk(
    loaded: settings.Settings,
    store: database.Store,
    own: listening.Listening | None,
    machine: engine.Engine,
    time: clock.Clock,
) -> enrolling.Enrolling | None:
    """Where nodes come in; None where there is no TLS."""
    if loaded.tls is None or own is None:
        return None
    return enrolling.Enrolling(store, own, loaded.tls, time, machine.quarantine_node)


@contextlib.asynccontextmanager
async def _guarded(guards: door.Guards, issued: issuers.Issuers, machine: engine.Engine) -> AsyncIterator[None]:
    """Watch over the streams that are open, and over how late everything is, while the block runs."""
    watch = tasks.Guard()
    watch.start(machine.pressure.run(), "watch over pressure")
    watch.start(guards.streams.run(), "watch over streams")
    try:
        yield
    finally:
        await watch.stop()
        await issued.close()


@contextlib.asynccontextmanager
async def _telling(watch: access.Watch, loaded: settings.Settings) -> AsyncIterator[None]:
    """Have the audit log told who may do what, before anybody is answered and while the block runs."""
    await watch.start(loaded)
    guard = tasks.Guard()
    guard.start(watch.run(), "watch over who may do what")
    try:
        yield
    finally:
        await guard.stop()


@contextlib.asynccontextmanager
async def _on_the_web(
    loaded: settings.Settings, machine: engine.Engine, time: clock.Clock, own: listening.Listening | None
) -> AsyncIterator[None]:
    """Answer over HTTP while the block runs, where that is configured; else nothing of it is even imported."""
    if loaded.web is None:
        yield
        return
    from controller.web import serving as web_serving  # noqa: PLC0415  # as the line above says

    wrong = attempts.Attempts(time.monotonic, web_serving.HELD_BACK_MAX)
    async with web_serving.serving(loaded.web, machine, time, wrong, own if loaded.web.has_tls else None) as address:
        _logger.info("listening on %s://%s", "https" if loaded.web.has_tls else "http", address)
        yield


def _own_certificate(loaded: settings.Settings, time: clock.Clock) -> listening.Listening | None:
    """What the listeners show; None where there is no TLS."""
    if loaded.tls is None:
        return None
    return listening.Listening(
        loaded.authorities_dir, loaded.tls.all_names(loaded.listen, *([loaded.web.listen] if loaded.web else [])), time
    )


def _let_operator_in(
    loaded: settings.Settings, enrolled: register.Register, own: listening.Listening | None, time: clock.Clock
) -> None:
    """Make what the commands on this machine show: a certificate anew, or a token where there is none yet.

    At first it may do everything; what the register says of it later holds.
    """
    first = principals.Principal(principals.Kind.API, OPERATOR, roles.WHOLE_FLEET_ADMIN)
    if own is not None:
        if not (loaded.operator_certificate_dir / clients.CERTIFICATE_NAME).exists():
            enrolled.take_in(first)
        clients.issue(own.known, OPERATOR, OPERATOR_DAYS, time.now()).write(loaded.operator_certificate_dir)
        return
    clients.remove(loaded.operator_certificate_dir)
    if not loaded.operator_token_file.exists():
        private_files.write(loaded.operator_token_file, f"{enrolled.make_token(first).reveal()}\n")
