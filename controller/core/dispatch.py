"""The dispatch: which changes may begin now, and on what the others wait.

Theory of operation. The changes of a wave stand in lanes, one for each failure domain, in plan order; a cursor for each
lane says how far the dispatch is. A change that cannot begin because of its own node is passed; once its node is free,
or nothing stands against it any more, its number goes into ``ready``. So a step looks at the heads of the lanes only,
and never at every change. In a revert the lanes are those of all waves, read from their ends: what came last goes
first, a later hop of a node before an earlier one. Nodes that are unavailable already (``unwell``) go before all
others, in both directions, and cost the floor and their failure domain nothing: a change may be what heals them.

Rules kept: free slots are what parallelism, the floor and the failure domains leave, counting nodes that are out and
nodes that are down (G5); one operation for a node at a time (G4); nothing starts outside a window but what takes nodes
back; a change whose earlier one on the node came to nothing is dropped. Left out: when this is asked (`rollout`).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum, unique

from controller.core import draft as drafts
from controller.core import model, progress, windows

_P = progress.Place


@unique
class Hindrance(Enum):
    """Why a change that waits cannot begin though there is a slot."""

    OVER = "it waits no longer"
    NODE = "its node is not free for it"
    EARLIER = "an earlier change of its node came to nothing"


# Room.


def parallel_room(draft: drafts.Draft) -> int:
    """Count the operations that parallelism lets begin now."""
    tally, everything = draft.tally, len(draft.changes)
    if draft.is_going_back:
        bound = 0 if draft.rollout.is_emergency else draft.policy.revert_max_parallel
        return (bound or everything) - tally.undoing
    bound = 0 if draft.is_together else draft.policy.max_parallel
    return (bound or everything) - tally.holding - tally.settling


def floor_room(draft: drafts.Draft) -> int:
    """Count the nodes that may become unavailable before the floor is reached."""
    if not _has_floor(draft):
        return len(draft.changes)
    total = total_nodes(draft)
    return total - floor_nodes(draft, total) - draft.tally.unavailable


def total_nodes(draft: drafts.Draft) -> int:
    """Count the nodes of which the floor is a share."""
    joined = len({change.node_id for change in draft.rollout.joined})
    return draft.rollout.plan.blast_radius.of_nodes + joined - draft.tally.removed


def floor_nodes(draft: drafts.Draft, total: int) -> int:
    """Count the nodes that must stay available: a share, rounded up."""
    return -(-total * draft.policy.floor_percent // 100)


def _has_floor(draft: drafts.Draft) -> bool:
    return bool(draft.policy.floor_percent) and not draft.rollout.is_emergency and not draft.is_together


def is_full(draft: drafts.Draft, domain: str) -> bool:
    """Tell whether no further node of a failure domain may become unavailable; nodes without one stand alone."""
    return bool(domain) and _has_domains(draft) and draft.domains.get(domain, 0) >= draft.policy.domain_max_parallel


def _has_domains(draft: drafts.Draft) -> bool:
    return bool(draft.policy.domain_label) and not draft.rollout.is_emergency and not draft.is_together


# Windows.


def is_window_open(draft: drafts.Draft, at: datetime) -> bool:
    """Tell whether operations may start; where not, note when the window opens."""
    policy, until = draft.policy, draft.rollout.window_until
    if not policy.windows or draft.is_going_back or (until is not None and at <= until):
        return True
    spent = draft.rollout.plan.operation_p95
    if windows.is_open(policy.windows, at, for_=spent):
        closes_at = windows.closes_at(policy.windows, at)
        draft.set(window_until=None if closes_at is None else closes_at - spent, opens_at=None)
        return True
    opens_at = windows.opens_at(policy.windows, at)
    if opens_at == at:  # open, and not for long enough
        opens_at = windows.opens_at(policy.windows, windows.closes_at(policy.windows, at) or at)
    if opens_at != draft.rollout.opens_at:
        draft.set(opens_at=opens_at)
    return False


# Beginning.


def fill(draft: drafts.Draft, at: datetime) -> bool:
    """Give free slots to changes that wait; tell whether any was dropped, so that there may be more to decide."""
    for node_id in draft.freed:
        release(draft, node_id)
    draft.freed.clear()
    draft.has_ended = False
    if draft.rollout.state is model.RolloutState.REVERTING:
        _fill_back(draft, at)
    elif draft.rollout.state is model.RolloutState.RUNNING and not draft.is_giving_up:
        _fill_forward(draft, at)
    draft.has_moved = draft.has_ended
    return draft.has_ended


def _fill_forward(draft: drafts.Draft, at: datetime) -> None:
    if draft.unassigned <= 0 or draft.is_held_by_rules or not is_window_open(draft, at):
        return
    lanes = draft.order.lanes[draft.rollout.wave - 1]
    while draft.unwell and parallel_room(draft) > 0 and (unwell := _next_unwell(draft, at)) is not None:
        draft.begin(draft.of(unwell), at)
    for _ in range(min(parallel_room(draft), floor_room(draft))):
        number = _next_forward(draft, lanes, at)
        if number is None:
            break
        draft.begin(draft.of(number), at)


def _next_forward(draft: drafts.Draft, lanes: Mapping[str, tuple[int, ...]], at: datetime) -> int | None:
    """Take the first change in plan order that may begin."""
    while True:
        heads = ((_head(draft, domain, lanes), domain) for domain in _open_lanes(draft, lanes))
        number, domain = min(((n, domain) for n, domain in heads if n is not None), default=(None, ""))
        if number is None:
            return None
        _pass(draft, domain, number)
        if _may_begin(draft, number, at):
            return number


def _next_unwell(draft: drafts.Draft, at: datetime) -> int | None:
    """Take the first change that may begin on a node that is unavailable already."""
    last, may_begin = (-1, _may_go_back) if draft.is_going_back else (0, _may_begin)
    while draft.unwell:
        number = draft.unwell[last]
        draft.unwell = draft.unwell[:-1] if last else draft.unwell[1:]
        node_id = draft.key(number).node_id
        if not draft.is_unavailable(node_id):
            release(draft, node_id)  # it has come up meanwhile, and costs what others cost
        elif may_begin(draft, number, at):
            return number
    return None


def _open_lanes(draft: drafts.Draft, lanes: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    """Name the lanes whose failure domain has room."""
    names: Iterable[str] = lanes
    if draft.ready:
        names = (*lanes, *(domain for domain in draft.ready if domain not in lanes))
    if not _has_domains(draft):
        return names
    counts, bound = draft.domains, draft.policy.domain_max_parallel
    return [domain for domain in names if not domain or counts.get(domain, 0) < bound]


def _head(draft: drafts.Draft, domain: str, lanes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Find the number that a lane has first: of those that became ready, or at its cursor."""
    lane = lanes.get(domain, ())
    cursor = draft.cursors.get(domain, 0)
    is_back = draft.is_going_back
    at_cursor = None
    if cursor < len(lane):
        at_cursor = lane[-1 - cursor] if is_back else lane[cursor]
    ready = draft.ready.get(domain, ()) if draft.ready else ()
    if not ready:
        return at_cursor
    if at_cursor is None:
        return ready[-1] if is_back else ready[0]
    return max(ready[-1], at_cursor) if is_back else min(ready[0], at_cursor)


def _pass(draft: drafts.Draft, domain: str, number: int) -> None:
    """Take the head of a lane away."""
    ready = draft.ready.get(domain, ())
    position = bisect.bisect_left(ready, number)
    if position < len(ready) and ready[position] == number:
        rest = ready[:position] + ready[position + 1 :]
        others = {name: numbers for name, numbers in draft.ready.items() if name != domain}
        draft.ready = {**others, domain: rest} if rest else others
    else:
        draft.cursors = {**draft.cursors, domain: draft.cursors.get(domain, 0) + 1}


def _may_begin(draft: drafts.Draft, number: int, at: datetime) -> bool:
    """Tell whether a change may begin now; one whose earlier change came to nothing is dropped."""
    hindrance = _hindrance(draft, number)
    if hindrance is Hindrance.EARLIER:
        drop(draft, draft.of(number), "earlier_failed", "what comes before it on the node came to nothing", at)
    return hindrance is None


def _hindrance(draft: drafts.Draft, number: int) -> Hindrance | None:
    each = draft.of(number)
    if not progress.is_waiting(each):
        return Hindrance.OVER
    if draft.stands_against(each.change.node_id):
        return Hindrance.NODE
    earlier = [draft.of(other) for other in draft.numbers_of(each.change.node_id) if other < number]
    places = [progress.place(other, is_going_back=False) for other in earlier]
    if any(where.is_final and where is not _P.DONE for where in places):
        return Hindrance.EARLIER
    return Hindrance.NODE if any(not where.is_final for where in places) else None


# Beginning to go back.


def _fill_back(draft: drafts.Draft, at: datetime) -> None:
    while parallel_room(draft) > 0:
        number = _next_unwell(draft, at)
        if number is None and floor_room(draft) > 0:
            number = _next_back(draft, at)
        if number is None:
            break
        draft.begin(draft.of(number), at)


def _next_back(draft: drafts.Draft, at: datetime) -> int | None:
    lanes = draft.order.all_lanes
    while True:
        heads = ((_head(draft, domain, lanes), domain) for domain in _open_lanes(draft, lanes))
        number, domain = max(((n, domain) for n, domain in heads if n is not None), default=(None, ""))
        if number is None:
            return None
        _pass(draft, domain, number)
        if _may_go_back(draft, number, at):
            return number


def _may_go_back(draft: drafts.Draft, number: int, at: datetime) -> bool:
    """Tell whether a change may be undone now; one whose later change stays is left where it is."""
    each = draft.of(number)
    if progress.place(each, is_going_back=True) is not _P.WAITING or draft.stands_against(each.change.node_id):
        return False
    places = _places_of_later(draft, each)
    if _P.INFRASTRUCTURE_FAILED in places:
        draft.put(progress.left(each), at)
        return False
    return all(where.is_final for where in places)


def _places_of_later(draft: drafts.Draft, each: model.Progress) -> list[_P]:
    """Say where the later changes of the same node stand in a revert."""
    latest_first = map(draft.of, reversed(draft.numbers_of(each.change.node_id)))
    later = itertools.takewhile(lambda other: other.key != each.key, latest_first)
    return [progress.place(other, is_going_back=True) for other in later]


# What waits.


def may_try_again(draft: drafts.Draft, each: model.Progress, at: datetime) -> bool:
    """Tell whether a change that has failed may have its next attempt now."""
    node_id = each.change.node_id
    if draft.is_held_by_rules or parallel_room(draft) <= 0 or draft.stands_against(node_id) or draft.is_out(node_id):
        return False
    if draft.is_going_back and not all(where.is_final for where in _places_of_later(draft, each)):
        return False  # the node has shown meanwhile that it runs a later one, which goes back first
    has_room = floor_room(draft) > 0 and not is_full(draft, each.change.domain)
    return has_room and is_window_open(draft, at)


def release(draft: drafts.Draft, node_id: model.NodeId) -> None:
    """Let the changes of a node that were passed be looked at again, and first those of one that is unwell."""
    is_unwell = bool(draft.standing(node_id).unwell)
    for number in draft.numbers_of(node_id):
        if _is_waiting_now(draft, number) and (is_unwell or _was_passed(draft, number)):
            make_ready(draft, number)


def make_ready(draft: drafts.Draft, number: int) -> None:
    """Put a change where the dispatch finds it again."""
    each = draft.of(number)
    node_id = each.change.node_id
    if draft.standing(node_id).unwell or (draft.is_going_back and draft.is_unavailable(node_id)):
        draft.unwell = _inserted(draft.unwell, number)
    else:
        domain = each.change.domain
        draft.ready = {**draft.ready, domain: _inserted(draft.ready.get(domain, ()), number)}
    draft.has_moved = True


def _inserted(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    position = bisect.bisect_left(numbers, number)
    if position < len(numbers) and numbers[position] == number:
        return numbers
    return (*numbers[:position], number, *numbers[position:])


def _is_waiting_now(draft: drafts.Draft, number: int) -> bool:
    each = draft.of(number)
    is_present = draft.is_going_back or each.wave == draft.rollout.wave
    return is_present and progress.place(each, is_going_back=draft.is_going_back) is _P.WAITING


def _was_passed(draft: drafts.Draft, number: int) -> bool:
    """Tell whether the cursor of a change's lane is behind it."""
    each = draft.of(number)
    cursor = draft.cursors.get(each.change.domain, 0)
    if draft.is_going_back:
        lane = draft.order.all_lanes.get(each.change.domain, ())
        return number >= len(draft.order.keys) or len(lane) - bisect.bisect_right(lane, number) < cursor
    lane = draft.order.lanes[each.wave - 1].get(each.change.domain, ())
    return number >= len(draft.order.keys) or bisect.bisect_left(lane, number) < cursor


def drop(draft: drafts.Draft, each: model.Progress, reason: str, message: str, at: datetime) -> None:
    """Drop a change: nothing is done any more, and that is no failure."""
    draft.put(progress.skipped(each, reason, message, draft.clock(at)), at)


def waits(draft: drafts.Draft, number: int) -> bool:
    """Tell whether a change waits for its turn, or for its next attempt, in the wave that is out or on the way back."""
    each = draft.of(number)
    where = progress.place(each, is_going_back=draft.is_going_back)
    is_present = draft.is_going_back or each.wave == draft.rollout.wave
    return is_present and where in (_P.WAITING, _P.RETRYING)


def has_open_lane(draft: drafts.Draft) -> bool:
    """Tell whether a failure domain with room has a change that waits for it."""
    lanes = draft.order.all_lanes if draft.is_going_back else draft.order.lanes[draft.rollout.wave - 1]
    return any(_head(draft, domain, lanes) is not None for domain in _open_lanes(draft, lanes))


def is_kept_from_outside(draft: drafts.Draft) -> bool:
    """Tell whether it is the standing of nodes alone for which nothing of the wave can begin, and none of it is out."""
    lanes = draft.order.lanes[draft.rollout.wave - 1]
    is_passed = all(_head(draft, domain, lanes) is None for domain in (*lanes, *draft.ready))
    if is_passed:
        return True
    total = total_nodes(draft)
    is_reachable = not _has_floor(draft) or total > floor_nodes(draft, total)
    return is_reachable and draft.tally.unavailable == _unavailable_nodes(draft)


def _unavailable_nodes(draft: drafts.Draft) -> int:
    return sum(standing.is_unavailable for standing in draft.standings.values())
