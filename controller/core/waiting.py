"""Why nothing more of a rollout starts now, in a sentence, and when that ends by itself."""

from __future__ import annotations

from datetime import datetime

from controller.core import approving, dispatch, judging, model, wording
from controller.core import draft as drafts

S = model.RolloutState
Reason = model.Reason


def reason(draft: drafts.Draft, at: datetime) -> Reason | None:
    """Say what is waited for; None where the rollout has ended."""
    rollout = draft.rollout
    if rollout.state.is_terminal:
        return None
    if rollout.state is S.PENDING:
        return approving.waits(rollout) or Reason("not_begun", "it has not begun", rollout.created_at)
    if rollout.state is S.PAUSED:
        return Reason("paused", rollout.paused_because, rollout.paused_at)
    if rollout.state is S.REVERTING:
        return _reason_back(draft)
    if draft.is_giving_up:
        return Reason(rollout.reason, f"it starts nothing more: {rollout.message}")
    return _reason_of_rules(draft) or _reason_between(draft, at) or _reason_within(draft)


def _reason_of_rules(draft: drafts.Draft) -> Reason | None:
    """Name the rule of the monitor that keeps it where it is, one that fires before one of which nobody can tell."""
    holds = draft.rollout.rule_holds
    found = next((each for each in holds if each.state is model.RuleState.FIRING), holds[0] if holds else None)
    if found is None:
        return None
    where = f"on {found.node_id}" if found.node_id else "on the fleet"
    rest = f", and {len(holds) - 1} more" if len(holds) > 1 else ""
    if found.state is model.RuleState.FIRING:
        return Reason("rule_firing", f"rule {found.rule} fires {where}{rest}", found.since)
    return Reason("rule_unknown", f"nobody can tell whether rule {found.rule} fires {where}{rest}", found.since)


def _reason_between(draft: drafts.Draft, at: datetime) -> Reason | None:
    """Say what the next wave waits for, where this one is over."""
    rollout = draft.rollout
    if draft.tally.holding or draft.tally.settling or draft.tally.retrying or draft.unassigned:
        return None
    wave = f"wave {rollout.wave}"
    if rollout.bake_until is not None and at < rollout.bake_until:
        return Reason("baking", f"{wave} bakes until {wording.instant(rollout.bake_until)}")
    record = judging.current(rollout)
    if record is not None and not record.is_over:
        return _reason_of_judge(wave, record)
    return Reason("promotion_by_hand", f"{wave} is done, and somebody has to promote it", rollout.idle_since)


def _reason_of_judge(wave: str, record: model.Judging) -> Reason:
    told = "nobody has looked yet" if record.latest is None else record.latest.message
    if record.doubt is None:
        return Reason("judging", f"{wave} is done, and is judged: {told}", record.began_at)
    code = judging.UNKNOWN if record.doubt is model.Finding.UNKNOWN else judging.INCONCLUSIVE
    return Reason(code, f"{wave} is done, and somebody has to promote it or take it back: {told}", record.awaited_since)


def _reason_within(draft: drafts.Draft) -> Reason | None:
    """Say what the rest of the wave waits for."""
    rollout, tally = draft.rollout, draft.tally
    if not draft.unassigned and not tally.retrying:
        return _reason_together(draft) if draft.is_together else _under_way(draft)
    if rollout.opens_at is not None:
        return Reason("window_closed", f"the next window opens at {wording.instant(rollout.opens_at)}")
    return _reason_of_room(draft) or _reason_of_nodes(draft) or _under_way(draft)


def _reason_together(draft: drafts.Draft) -> Reason:
    rollout, tally = draft.rollout, draft.tally
    if rollout.verify_until is not None and rollout.proceeded is model.Step.SWITCH:
        if draft.policy.is_promoted_by_hand and not rollout.is_promoted:
            return Reason("promotion_by_hand", "all new versions serve, and somebody has to promote them")
        return Reason(
            "verifying", f"all new versions serve until {wording.instant(rollout.verify_until)} before they stay"
        )
    held = tally.held_at_switch + tally.held_at_commit
    if held and held < tally.holding:
        return Reason("held_for_others", f"{_nodes(held)} held for {tally.holding - held} more")
    return _under_way(draft)


def _reason_of_room(draft: drafts.Draft) -> Reason | None:
    tally = draft.tally
    if dispatch.parallel_room(draft) <= 0:
        out = tally.undoing if draft.is_going_back else tally.holding + tally.settling
        return Reason("slots_full", f"{out} operations are out, and no more may be at the same time")
    if dispatch.floor_room(draft) <= 0:
        total = dispatch.total_nodes(draft)
        kept = dispatch.floor_nodes(draft, total)
        return Reason("floor", f"{kept} of {total} nodes must stay available, and {_are(tally.unavailable)} not")
    domains = sorted(domain for domain in draft.order.all_lanes if dispatch.is_full(draft, domain))
    if domains and not dispatch.has_open_lane(draft):
        bound = draft.policy.domain_max_parallel
        return Reason("domain_full", f"no more than {bound} may be unavailable in {', '.join(domains)}")
    return None


def _reason_of_nodes(draft: drafts.Draft) -> Reason | None:
    """Name the nodes that keep their own changes from beginning."""
    waiting = [node_id for node_id in sorted(draft.standings) if _waits(draft, node_id)]
    if not waiting:
        return None
    standing = draft.standing(waiting[0])
    code = "nodes_down" if standing.down else "nodes_frozen"
    rest = f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return Reason(code, f"{waiting[0]} is waited for: {standing.down or standing.frozen}{rest}")


def _waits(draft: drafts.Draft, node_id: model.NodeId) -> bool:
    numbers = draft.numbers_of(node_id)
    return draft.stands_against(node_id) and any(dispatch.waits(draft, number) for number in numbers)


def _reason_back(draft: drafts.Draft) -> Reason:
    if draft.tally.waiting and (found := _reason_of_room(draft) or _reason_of_nodes(draft)) is not None:
        return found
    return Reason("going_back", f"touched nodes go back: {draft.rollout.message}")


def _under_way(draft: drafts.Draft) -> Reason:
    tally = draft.tally
    out = tally.holding + tally.settling + tally.retrying
    are = "1 change is" if out == 1 else f"{out} changes are"
    return Reason("under_way", f"{are} under way in wave {draft.rollout.wave}", draft.rollout.wave_started_at)


def next_time(rollout: model.Rollout) -> datetime | None:
    """Tell when the first wait ends by time alone: a bake, a verification, a closed window, a doubt.

    Deadlines are none of these. None where none is waited for, where somebody has to promote it, and while it is not
    RUNNING.
    """
    if rollout.state is not S.RUNNING:
        return None
    is_by_hand = rollout.request.policy.is_promoted_by_hand and not rollout.is_promoted
    bake_until = rollout.bake_until if rollout.idle_since is None else None
    known = (bake_until, None if is_by_hand else rollout.verify_until, rollout.opens_at, judging.due_at(rollout))
    return min((each for each in known if each is not None), default=None)


def _nodes(count: int) -> str:
    return "1 node is" if count == 1 else f"{count} nodes are"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count} are"
