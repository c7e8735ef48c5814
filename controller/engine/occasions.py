"""What others bring about: a trigger fired by hand, an event that arrives, a firing that somebody lets act or does not.

Rules kept: an event is an occasion once, however often it is sent; what a batch holds is taken whole or not at all;
a filter that cannot be evaluated on an event is no match, and is kept with its trigger where that is no want of data.
Left out: how events get here (`controller.rpc`, `controller.web`).
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller import conditions
from controller.core import errors, model
from controller.core.triggers import events, machine
from controller.engine import draft as drafts
from controller.engine import firing, office
from controller.store import reading, rows

EVENTS_MAX = 1_000  # of one batch
DATA_LENGTH_MAX = 256 * 1024  # characters of one event's data
TEXT_LENGTH_MAX = 1_024  # characters of each of its other texts
AGE_MAX = office.EVENTS_REMEMBERED / 2
AHEAD_MAX = timedelta(minutes=5)  # clocks of senders differ
_FIRINGS_SEARCHED = 1_000
_BY_HAND = "by-hand:"  # begins the source of what is asked for by hand, which no sender can have

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch of events.

    Args:
        accepted: Those that were new.
        duplicates: Those that had come before.
        firings: What they made fire.
    """

    accepted: int
    duplicates: int
    firings: tuple[model.FiringId, ...]


class Occasions(office.Office):
    """Occasions and decisions, as people and senders bring them."""

    async def fire_trigger(self, name: str, *, reason: str, actor: str, request_id: str = "") -> model.Firing:
        """Fire a trigger by hand; the same request identity again returns the same firing.

        Raises:
            NotFoundError: Code ``trigger_not_found``.
            RefusedError: Code ``trigger_disabled``.
            UnavailableError: Code ``triggers_inactive``.
        """
        work = functools.partial(self._fire, name=name, reason=reason, actor=actor, request_id=request_id)
        return await self._asked(office.Asked(actor, "fire_trigger", (name, reason), subject=name), work)

    def _fire(self, draft: drafts.Draft, name: str, reason: str, actor: str, request_id: str) -> model.Firing:
        self._check_active()
        key = rows.EventKey(f"{_BY_HAND}{name}", request_id)
        if request_id and self._has_received(draft, key):  # also where the trigger is no more: it was answered then
            return self._fired_before(draft, name, request_id)
        if name not in draft.world.triggers:
            raise office.not_found("trigger", "name", name)
        number = draft.world.statuses[name].number
        event = events.FiredByHand(draft.at, actor, reason, request_id)
        decision = firing.feed(draft, name, event)
        if request_id:
            draft.put_received(key)
        draft.put_audit(actor, "trigger.fire", name, reason)
        made = () if decision is None else decision.firings
        return next(each for each in made if each.number == number + 1)

    def _fired_before(self, draft: drafts.Draft, name: str, request_id: str) -> model.Firing:
        for each in (*draft.firings_of(name), *self.firings(name, _FIRINGS_SEARCHED, only_open=False)):
            if each.cause.event_id == request_id and each.cause.actor:
                return each
        raise errors.RefusedError(
            f"cannot fire trigger {name} again under request_id {request_id}: what it fired then is not kept any more",
            code="request_id_reused",
            field="request_id",
            value=request_id,
            rule="a request identity stands for one firing",
        )

    def firings(self, name: str, limit: int, *, only_open: bool) -> tuple[model.Firing, ...]:
        """Return the newest firings of a trigger, newest first; of all where the name is empty."""
        return self._store.read(lambda connection: reading.firings(connection, name, limit, only_open=only_open))

    def firing(self, firing_id: str) -> model.Firing:
        """Find a firing.

        Raises:
            NotFoundError: Code ``firing_not_found``.
        """
        trigger_id, _, number = firing_id.rpartition(".")
        found = None
        if number.isascii() and number.isdigit():
            found = self._store.read(lambda connection: reading.firing(connection, trigger_id, int(number)))
        if found is None:
            raise office.not_found("firing", "firing_id", firing_id)
        return found

    async def approve_firing(self, firing_id: str, *, reason: str, actor: str) -> model.Firing:
        """Let a firing act that waits for somebody's word.

        Raises:
            NotFoundError: Code ``firing_not_found``.
            RefusedError: Code ``approval_not_needed``, ``approval_expired`` or ``approval_by_requester``.
        """
        return await self._decide(firing_id, actor, reason, is_approved=True)

    async def deny_firing(self, firing_id: str, *, reason: str, actor: str) -> model.Firing:
        """Let a firing that waits for somebody's word not act.

        Raises:
            NotFoundError: Code ``firing_not_found``.
            RefusedError: Code ``approval_not_needed`` or ``approval_expired``.
        """
        return await self._decide(firing_id, actor, reason, is_approved=False)

    async def _decide(self, firing_id: str, actor: str, reason: str, *, is_approved: bool) -> model.Firing:
        known = self.firing(firing_id)
        verb = "approve" if is_approved else "deny"

        def work(draft: drafts.Draft) -> None:
            event = events.Decided(draft.at, known.id, actor, reason, is_approved)
            try:
                firing.feed(draft, known.trigger, event)
            except errors.IllegalEventError as error:
                raise _nobody_waits(verb, known.id) from error
            draft.put_audit(actor, f"firing.{verb}", known.id, reason)

        def shown(draft: drafts.Draft, _: None) -> model.Firing:
            return draft.firings.get(known.id, known)

        await self._asked(office.Asked(actor, f"{verb}_firing", known.id, subject=known.id), work, shown)
        return self.firing(known.id)

    async def receive(self, sent: Sequence[model.ReceivedEvent], *, actor: str) -> Receipt:
        """Take events; those that have come before are told apart, and are no occasion.

        Raises:
            InvalidRequestError: One of them is none, code ``invalid_event`` or ``event_too_old``.
            UnavailableError: Code ``triggers_inactive``.
        """
        asked = office.Asked(actor, "send_events", tuple((each.source, each.id, each.type) for each in sent))
        return await self._asked(asked, functools.partial(self._receive, sent=tuple(sent)))

    def _receive(self, draft: drafts.Draft, sent: tuple[model.ReceivedEvent, ...]) -> Receipt:
        self._check_active()
        if len(sent) > EVENTS_MAX:
            raise _wrong("events", str(len(sent)), f"at most {EVENTS_MAX} at once")
        for index, event in enumerate(sent):
            _check(event, f"events[{index}]", draft.at)
        new, fired = 0, list[model.FiringId]()
        for event in sent:
            key = rows.EventKey(event.source, event.id)
            if self._has_received(draft, key):
                continue
            new += 1
            draft.put_received(key)
            fired += _arrive(draft, event, self._heeding.meant(draft, event.type))
        return Receipt(new, len(sent) - new, tuple(fired))

    def _has_received(self, draft: drafts.Draft, key: rows.EventKey) -> bool:
        return draft.has_received(key) or self._store.read(lambda connection: reading.has_received(connection, key))

    def _check_active(self) -> None:
        if not self._heeding.is_active:
            raise errors.UnavailableError(
                "cannot take it now: the triggers are not active",
                code="triggers_inactive",
                rule="what nobody would act upon is not accepted",
            )


def _nobody_waits(verb: str, firing_id: model.FiringId) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot {verb} firing {firing_id}: it is at its end",
        code="approval_not_needed",
        field="firing",
        value=firing_id,
        rule="only what asks is approved, once",
    )


def _arrive(draft: drafts.Draft, event: model.ReceivedEvent, names: Iterable[str]) -> Iterator[model.FiringId]:
    """Draft what an event means for some triggers; give what it made fire."""
    for name in names:
        before, found = draft.world.statuses[name].number, _matching(draft, draft.world.triggers[name], event)
        decision = None if found is None else firing.feed(draft, name, found)
        if decision is not None:
            yield from (each.id for each in decision.firings if each.number > before)


def _matching(
    draft: drafts.Draft, trigger: model.Trigger, event: model.ReceivedEvent
) -> events.Arrived | events.EvaluationFailed | None:
    """Find out what an event is to a trigger; None for nothing."""
    when, status = trigger.when, draft.world.statuses[trigger.name]
    if not isinstance(when, model.EventMatch) or not machine.can_evaluate(trigger, status, draft.at):
        return None
    try:
        is_match = not when.filter or conditions.compile_filter(when.filter, "when.event.filter").matches(event)
    except errors.InvalidRequestError as error:  # it was stored under another schema
        return events.EvaluationFailed(draft.at, "invalid_condition", str(error))
    except Exception as error:  # noqa: BLE001 whatever it is, it is the trigger's, and not the sender's
        _log.exception("cannot match trigger %s with an event", trigger.name)
        return events.EvaluationFailed(draft.at, "evaluation_failed", f"{type(error).__name__}: {error}")
    return events.Arrived(draft.at, event) if is_match else None


def _check(event: model.ReceivedEvent, field: str, at: datetime) -> None:
    """See that an event is one.

    Raises:
        InvalidRequestError: Code ``invalid_event`` or ``event_too_old``.
    """
    for name in ("source", "id", "type"):
        if not getattr(event, name):
            raise _wrong(f"{field}.{name}", "", "it is not empty")
    for name in ("source", "id", "type", "subject"):
        text = getattr(event, name)
        if len(text) > TEXT_LENGTH_MAX or not text.isprintable():
            rule = f"printable text of at most {TEXT_LENGTH_MAX} characters"
            raise _wrong(f"{field}.{name}", text[:TEXT_LENGTH_MAX], rule)
    if event.source.startswith(_BY_HAND):
        raise _wrong(f"{field}.source", event.source, f"it does not begin with {_BY_HAND}")
    _check_data(event.data, f"{field}.data")
    if event.at is not None and not at - AGE_MAX <= event.at <= at + AHEAD_MAX:
        rule = f"not older than {AGE_MAX.days} day, and not of the future"
        raise _wrong(f"{field}.time", event.at.isoformat(), rule, code="event_too_old")


def _check_data(data: str, field: str) -> None:
    if len(data) > DATA_LENGTH_MAX:
        raise _wrong(field, f"{len(data)} characters", f"at most {DATA_LENGTH_MAX} characters")
    try:
        is_object = isinstance(json.loads(data, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise _wrong(field, data[:TEXT_LENGTH_MAX], "JSON text of an object")


def _refuse(word: str) -> float:
    raise ValueError(word)  # NaN and Infinity are no JSON


def _wrong(field: str, value: str, rule: str, *, code: str = "invalid_event") -> errors.InvalidRequestError:
    message = f"cannot take the events: {field} is {value!r}; {rule}"
    return errors.InvalidRequestError(message, code=code, field=field, value=value, rule=rule)
