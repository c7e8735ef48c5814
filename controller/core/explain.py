"""Why a rollout, or a node, stands as it does: chains of reasons, each of which follows from the next (G10).

Theory of operation. The first link says what is so. The others say why, down to something that is a fact, a wish of
somebody, or a time to wait for. What a rollout waits for is asked of `rollout` itself, so that an explanation and a
decision cannot differ. Of the changes of one node the one that decides is told of: forward, the first that is not done;
on the way back, the last that is not back.

Rules kept: pure; a chain is never empty; codes are stable, messages are for people. Left out: history, which is in the
audit log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import cast

from controller.core import judging, model, progress, selector, windows, wording
from controller.core import rollout as rollouts

S = model.RolloutState
K = model.ChangeKind
P = progress.Place
Chain = Iterator[model.Reason]

_GOES_BACK = frozenset({S.REVERTING, S.REVERTED, S.STUCK})
_TOLD = frozenset({"not_begun", "going_back"})  # what a rollout waits for that its state says already
_SAYS = {
    S.PENDING: "has not begun",
    S.RUNNING: "is in wave {wave} of {waves}: {done} of {total} changes are done",
    S.PAUSED: "is paused in wave {wave} of {waves}: {done} of {total} changes are done",
    S.REVERTING: "goes back",
    S.SUCCEEDED: "has succeeded: {done} of {total} changes are done",
    S.FAILED: "has failed: {done} of {total} changes are done",
    S.CANCELLED: "was cancelled: {done} of {total} changes are done",
    S.REVERTED: "was taken back",
    S.STUCK: "is stuck: not every node could go back",
}


def rollout(state: model.Rollout, at: datetime) -> tuple[model.Reason, ...]:
    """Say how far a rollout is, and why no further."""
    return tuple(_rollout(state, at))


def node_in(
    state: model.Rollout, node_id: model.NodeId, standing: model.Standing, at: datetime
) -> tuple[model.Reason, ...]:
    """Say how far a node is in a rollout, and why no further.

    Args:
        state: The rollout.
        node_id: Any node, also one that the rollout does not know.
        standing: Whether the node could be changed now.
        at: Now.
    """
    found = _decisive(state, node_id)
    if found is not None:
        return tuple(_change(state, found, standing, at))
    return tuple(_untouched(state, node_id))


def node(
    each: model.Node, known: Iterable[model.Rollout], freezes: Iterable[model.Freeze], at: datetime
) -> tuple[model.Reason, ...]:
    """Say what becomes of a node: in the rollout that is under way with it, else in the latest one that knew it.

    Args:
        each: The node.
        known: Rollouts; those that know nothing of the node count only where no other does.
        freezes: All there are; those that are over or do not cover the node count for nothing.
        at: Now.
    """
    against = tuple(_against(each, freezes, at))
    found = max(known, key=lambda state: _relevance(state, each.id), default=None)
    shown = tuple(_shown(each))
    free = (model.Reason("free", "no rollout is under way with the node"), *against)
    if found is None:
        return (*free, *shown)
    standing = found.standings.get(each.id) or _standing_by(against)
    told = (*node_in(found, each.id, standing, at), *_bad(found, each), *shown)
    if found.state.is_terminal or not _knows(found, each.id):
        return (*free, *told)
    return (*told, *(reason for reason in against if not any(reason.message.startswith(link.message) for link in told)))


# Rollouts.


def _rollout(state: model.Rollout, at: datetime) -> Chain:
    yield _head(state)
    if state.reason or state.message:
        code = "queued" if state.state is S.PENDING else "told"
        yield model.Reason(state.reason or code, state.message or state.reason)
    yield from _waits(state, at)
    yield from _judged(state)
    failed = next(_failed(state), None)
    if failed is not None:
        yield from _failure(failed, on=f" on {failed.change.node_id}")


def _waits(state: model.Rollout, at: datetime) -> Chain:
    """Say what a rollout waits for, where its head and its reason do not say it already."""
    waits = rollouts.waiting_for(state, at)
    is_giving_up = state.state is S.RUNNING and state.reason
    if waits is not None and not is_giving_up and waits.code not in _TOLD:
        yield waits


def _judged(state: model.Rollout) -> Chain:
    """Say how its canary wave was judged, or is while the wave still goes out."""
    record = state.judging
    if record is None or record.latest is None or state.reason == judging.WORSE:
        return
    found = record.decided or record.latest
    if record.decided_by:
        yield model.Reason("promoted_by_hand", f"{record.decided_by} promoted wave {record.wave}", record.decided_at)
        yield model.Reason("evidence", f"the evidence by then: {found.message}", found.at)
    elif record.is_over or record.awaited_since is None:  # else it is what the rollout waits for
        is_over = record.is_over and judging.is_passed(record)
        yield model.Reason(
            "judged", f"wave {record.wave} {'was' if is_over else 'is'} judged: {found.message}", found.at
        )


def _head(state: model.Rollout) -> model.Reason:
    says = _SAYS[state.state].format(
        wave=state.wave, waves=len(state.plan.waves), done=state.tally.done, total=len(state.changes)
    )
    code = state.state.value.lower()
    if state.state is S.RUNNING and state.reason:
        code, says = "giving_up", "begins nothing more, and ends once no node is held"
    return model.Reason(code, f"{_name(state)} {says}", _since(state))


def _name(state: model.Rollout) -> str:
    return f"rollout {state.request.name or state.id}"


def _since(state: model.Rollout) -> datetime | None:
    if state.state.is_terminal:
        return state.ended_at
    return state.created_at if state.state is S.PENDING else state.paused_at or state.wave_started_at


def _failed(state: model.Rollout) -> Iterator[model.Progress]:
    """Go through the changes for which a rollout ended as it did, in plan order."""
    if state.state is S.STUCK:
        stuck = P.INFRASTRUCTURE_FAILED
        yield from (each for each in _in_order(state) if progress.place(each, is_going_back=True) is stuck)
    elif state.reason or state.state is S.SUCCEEDED:
        failed = [each for each in _in_order(state) if each.fault is not None and each.deadline_at is None]
        yield from sorted(failed, key=lambda each: each.fault is not model.Fault.VERSION)


def _in_order(state: model.Rollout) -> list[model.Progress]:
    """Give the changes wave by wave, and by name within a wave."""
    return sorted(state.changes.values(), key=lambda each: (each.wave, each.change.node_id, each.change.component))


# One node in a rollout.


def _decisive(state: model.Rollout, node_id: model.NodeId) -> model.Progress | None:
    """Find the change that decides how far a node is; None where the rollout changes nothing on it."""
    found = [each for each in _in_order(state) if each.change.node_id == node_id]
    is_going_back = state.state in _GOES_BACK
    touched = [each for each in found if each.is_touched or each.is_reverting]
    if is_going_back and touched:
        found = touched[::-1]
    left = (each for each in found if not (progress.is_done(each) and each.is_reverting is is_going_back))
    return next(left, found[-1] if found else None)


def _change(state: model.Rollout, each: model.Progress, standing: model.Standing, at: datetime) -> Chain:
    """Say how far a change is; what is on its way back, or has to go there, is told of as that."""
    is_undone = (each.is_reverting and each.state is not None) or (state.state in _GOES_BACK and each.is_touched)
    what = (each.change.component, wording.done(each.change, is_undone=is_undone))
    match progress.place(each, is_going_back=is_undone):
        case P.DONE:
            yield model.Reason("done", "{} is {}".format(*what), each.ended_at)
            yield from _why_done(state, each, is_undone=is_undone)
        case P.HOLDING | P.SETTLING:
            yield from _under_way(state, each, at)
        case P.RETRYING:
            yield model.Reason("not_yet", "{} is not {} yet".format(*what), each.ended_at)
            yield from _retry(each)
        case P.VERSION_FAILED | P.INFRASTRUCTURE_FAILED:
            yield from _not_done(each, what)
        case _:
            is_over = state.state.is_terminal or (state.state is S.REVERTING and not is_undone) or each.is_skipped
            told = ("not_done", "{} was not {}") if is_over else ("not_yet", "{} is not {} yet")
            yield model.Reason(told[0], told[1].format(*what))
            yield from _why_waiting(state, each, standing, at)


def _why_done(state: model.Rollout, each: model.Progress, *, is_undone: bool) -> Chain:
    if is_undone:
        yield model.Reason(state.reason or "reverted", state.message or f"{_name(state)} went back")
    elif each.change.kind in (K.REMOVE, K.STOP):
        yield model.Reason("proven", "the node has shown it", each.ended_at)
    else:
        healthy_for = state.request.policy.min_healthy_duration
        yield model.Reason("proven", f"it was healthy for {healthy_for} without a break", each.ended_at)


def _under_way(state: model.Rollout, each: model.Progress, at: datetime) -> Chain:
    phrase = wording.done(each.change, is_undone=each.is_reverting)
    yield model.Reason("under_way", f"{each.change.component} is being {phrase}", each.assigned_at)
    yield model.Reason("attempt", wording.attempt(each))
    is_unwanted = state.state in _GOES_BACK or bool(state.reason)
    if is_unwanted and not each.is_reverting and not each.is_touched:
        yield model.Reason("cancelling", "it is asked to give up")
        yield _head(state)
    elif each.reason:
        yield model.Reason(each.reason, each.message or each.reason)
    elif each.state is model.OperationState.HELD:
        yield model.Reason("held", "it waits until the rollout lets it go on")
        yield from _waits(state, at)
    elif each.committed_at is not None and each.state is not model.OperationState.UNKNOWN:
        healthy_for = state.request.policy.min_healthy_duration
        yield model.Reason("unproven", f"it has yet to be healthy for {healthy_for} without a break", each.committed_at)


def _retry(each: model.Progress) -> Chain:
    when = wording.instant(cast("datetime", each.deadline_at))  # what is tried again has one
    yield model.Reason("retry", f"attempt {each.attempt + 1} begins at {when} or later")
    yield from _failure(each)


def _not_done(each: model.Progress, what: tuple[str, str]) -> Chain:
    if each.state is model.OperationState.UNKNOWN:
        yield model.Reason("unknown", "nobody knows whether {} is {}".format(*what))
    else:
        yield model.Reason("not_done", "{} was not {}".format(*what), each.ended_at)
    yield from _failure(each)


def _failure(each: model.Progress, on: str = "") -> Chain:
    """Say why a change was not done, or cannot be undone."""
    if each.is_left:
        yield model.Reason(each.reason or "left", f"{each.change.component} is left as it is{on}: {each.message}")
        return
    yield model.Reason("attempt_failed", wording.failure(each, on), each.ended_at)
    if each.reason:
        yield model.Reason(each.reason, each.message or each.reason)


def _why_waiting(state: model.Rollout, each: model.Progress, standing: model.Standing, at: datetime) -> Chain:
    if each.is_skipped:
        yield model.Reason(each.reason, each.message or each.reason)
        return
    if state.state is S.RUNNING and not state.reason:
        if each.wave > state.wave:
            yield model.Reason("turn", f"it waits for its turn in wave {each.wave} of {len(state.plan.waves)}")
        elif standing.down or standing.frozen:
            yield from _hindered(state, standing, at)
            return
    yield from _rollout(state, at)


def _hindered(state: model.Rollout, standing: model.Standing, at: datetime) -> Chain:
    """Say why a node whose turn it is is not given its operation, and what becomes of it."""
    if not standing.down:
        yield model.Reason("node_frozen", standing.frozen)
        return
    yield model.Reason("node_down", standing.down)
    policy = state.request.policy
    yield model.Reason("offline_policy", wording.offline(policy))
    opens_at = windows.opens_at(policy.windows, at)
    if opens_at is not None and opens_at > at:
        yield model.Reason("window", f"the next window opens at {wording.instant(opens_at)}")


def _untouched(state: model.Rollout, node_id: model.NodeId) -> Chain:
    """Say why a rollout changes nothing on a node."""
    excluded = [each for each in state.plan.excluded if each.node_id == node_id]
    if excluded:
        yield model.Reason("excluded", f"{_name(state)} leaves the node out", state.created_at)
        yield from (model.Reason(each.code, each.message) for each in excluded)
    elif node_id in state.plan.unchanged:
        yield model.Reason("unchanged", f"{_name(state)} changes nothing on the node", state.created_at)
        yield model.Reason("nothing_to_do", _nothing_to_do(state.request))
    else:
        yield model.Reason("not_selected", f"{_name(state)} does not concern the node", state.created_at)
        selected = state.request.selector
        says = f"it takes the nodes with {selected}" if selected else "it takes all nodes"
        joined = state.request.policy.join is model.JoinPolicy.INCLUDE
        yield model.Reason("selector", says if joined else f"{says} that were there when it was planned")


def _nothing_to_do(request: model.UpgradeRequest) -> str:
    if request.kind is not None:
        return f"when it was planned, there was nothing to {request.purpose}"
    lacks = "" if request.install else f", or lacked {request.component}, which the request does not install"
    return f"when it was planned, the node had {request.component} {request.target_version} already{lacks}"


# One node.


def _relevance(state: model.Rollout, node_id: model.NodeId) -> tuple[bool, bool, datetime]:
    is_known = _knows(state, node_id)
    return (is_known and not state.state.is_terminal, is_known, state.created_at)


def _knows(state: model.Rollout, node_id: model.NodeId) -> bool:
    """Tell whether a rollout says anything of a node but that it does not concern it."""
    if node_id in state.plan.unchanged or any(each.node_id == node_id for each in state.plan.excluded):
        return True
    return any(key.node_id == node_id for key in state.changes)


def _against(each: model.Node, freezes: Iterable[model.Freeze], at: datetime) -> Chain:
    """Say all that speaks against an operation on a node now; what takes it down first."""
    if each.quarantined_because:
        yield model.Reason("node_quarantined", f"quarantined: {each.quarantined_because}")
    if each.cordoned_because:
        yield model.Reason("node_cordoned", f"cordoned: {each.cordoned_because}")
    if not each.is_connected:
        since = each.offline_since or each.last_seen_at
        seen = "it was never seen" if since is None else f"offline since {wording.instant(since)}"
        yield model.Reason("node_offline", seen, since)
    unwell = model.hindrance(each.conditions)
    if unwell is not None:
        yield model.Reason(unwell.code, f"{unwell.code}: {unwell.message}", unwell.since)
    for freeze in freezes:
        if _covers(freeze, each, at):
            until = "it is lifted" if freeze.until is None else wording.instant(freeze.until)
            yield model.Reason("frozen", f"frozen by {freeze.actor}: {freeze.reason}, until {until}", freeze.since)


def _shown(each: model.Node) -> Chain:
    """Say what is wrong with the series that a node shows: it stands in no way, but what is judged may lack it."""
    for condition in each.conditions:
        if condition.code == model.METRICS_CAPPED:
            yield model.Reason(condition.code, condition.message, condition.since)


def _covers(freeze: model.Freeze, each: model.Node, at: datetime) -> bool:
    is_on = freeze.since <= at and (freeze.until is None or at < freeze.until)
    return is_on and selector.parse(freeze.selector).matches(each.labels)


def _standing_by(against: tuple[model.Reason, ...]) -> model.Standing:
    down = next((reason.message for reason in against if reason.code != "frozen"), "")
    frozen = next((reason.message for reason in against if reason.code == "frozen"), "")
    return model.Standing(down=down, frozen=frozen)


def _bad(state: model.Rollout, each: model.Node) -> Chain:
    """Say which versions of a rollout the node is not offered again."""
    for change in (at.change for at in _in_order(state) if at.change.node_id == each.id):
        if change.to_digest in each.bad_digests:
            says = f"the node left {change.component} {change.to_version} for cause and is not offered it again"
            yield model.Reason("digest_left_for_cause", f"{says}: {each.bad_digests[change.to_digest]}")
