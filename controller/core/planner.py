"""The planner: what a request would do to the fleet as it is known now.

Rules kept: pure and deterministic: the same request on the same fleet gives the same plan, with the same fingerprint.
A request names a target version or a channel, or a kind: REMOVE, START, STOP or RESTART of what is installed. Refused
is what names something unknown or would do something that nobody asked for; each refusal names the field, the value and
the rule, and nothing is planned. What one node stands against refuses the request, unless it is PERMISSIVE: then the
node is left out. Warnings refuse where it is STRICT. Whether a node is reachable decides only whether it is skipped,
where the policy says so, and what is warned of. What past operations teach is told beside the plan, and counts only for
how long it is expected to take. Left out: other rollouts that have the nodes.

Decisions on the canary: it must be smaller than the selection, unless one node is selected; where at most as many
nodes as it has remain to be changed, these are the canary and no second wave follows. Decisions on kinds: nodes that
lack the component are left alone, as are those where it is so already; what is stopped is not restarted.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from controller.core import (
    advising,
    analyses,
    capacity,
    cautions,
    errors,
    estimates,
    fingerprints,
    forecasts,
    model,
    requests,
    selections,
    surveys,
    thresholds,
    waves,
)

Fleet = surveys.Fleet
differences = fingerprints.differences


def plan(request: model.UpgradeRequest, fleet: Fleet) -> model.Plan:
    """Plan a request.

    Raises:
        InvalidRequestError: The request is wrong in itself.
        NotFoundError: A component or its version was never published.
        RefusedError: The fleet, as it is known, does not allow it.
    """
    requests.check(request)
    requests.check_rules(request.policy, fleet.rules)
    analysis = requests.analysis(request)
    if analysis is not None:
        analyses.check_source(analysis, fleet.sources)
    with _collected_later():
        return _planned(request, fleet)


@contextlib.contextmanager
def _collected_later() -> Iterator[None]:
    """Keep the collector of cycles away: it would go through the whole fleet for values that can be in no cycle.

    What was made meanwhile is counted among the old values at once, or the collector would go through all of it next.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # into the oldest generation; both only link lists
        if was_enabled:
            gc.enable()


def _planned(request: model.UpgradeRequest, fleet: Fleet) -> model.Plan:
    survey = surveys.survey(request, fleet)
    selections.check(survey)
    selection = selections.sort_out(survey)
    phases = waves.phases(survey.order, survey.verdicts)
    made = waves.build(request, phases, waves.shuffled(selection.changing, survey.seed))
    loads = _loads(made, request.policy, selection.population)
    course = _course(survey, selection, made, loads, fleet)
    _check_freezes(survey)
    warnings = _warnings(survey, selection, loads, course, fleet)
    names = survey.facts(fleet.graph)
    advised = advising.advise(fleet.memory, phases, survey.kinds, selection.kinds)
    parts = tuple(each.wave for each in made)
    return model.Plan(
        fingerprint=fingerprints.fingerprint(names),
        waves=parts,
        unchanged=selection.unchanged,
        excluded=selection.excluded,
        warnings=warnings,
        blast_radius=_blast_radius(request, selection, loads),
        capacity=capacity.trace(loads, course.begins, request.policy, selection.population),
        estimate=course.estimate,
        operation_p95=course.operation_p95,
        facts=names,
        advice=advised.advice,
        advice_left_out=advised.left_out,
        forecast=forecasts.forecast(request, parts, fleet.nodes, fleet.habits),
    )


def join(request: model.UpgradeRequest, fleet: Fleet, node: model.Node, plan: model.Plan) -> tuple[model.Change, ...]:
    """Say what a node that appears later needs to get the target of a plan.

    Args:
        request: What the plan was made for.
        fleet: As it is now; its nodes play no part.
        node: The node.
        plan: Its targets count, also where a channel points elsewhere by now.

    Returns:
        The changes in their order; none where it needs none, or where it cannot be led there in one hop for each
        component: a barrier wants its bake.
    """
    try:
        survey = surveys.survey(_as_planned(request, plan), replace(fleet, nodes=(node,)))
        selection = selections.sort_out(survey)
    except errors.InstarError:
        return ()
    phases = waves.phases(survey.order, survey.verdicts)
    made = waves.build(replace(request, strategy=model.Strategy.IMMEDIATE), phases, selection.changing)
    changes = [change for each in made for change in each.wave.changes]
    is_direct = len({each.component for each in changes}) == len(changes)
    return tuple(changes) if is_direct else ()


def _as_planned(request: model.UpgradeRequest, plan: model.Plan) -> model.UpgradeRequest:
    """Put the versions that a plan leads to, with the last hop of each component, in place of what was asked."""
    if request.kind is not None:
        return request
    led = {wave.changes[0].component: wave.changes[0].to_version for wave in plan.waves}
    also = tuple(replace(each, version=led.get(each.component, each.version)) for each in request.also)
    return replace(request, target_version=led.get(request.component, request.target_version), also=also)


def _loads(
    made: Sequence[waves.Part], policy: model.Policy, population: capacity.Population
) -> Sequence[capacity.Load]:
    """Count what each wave asks for; once for those that change the same nodes."""
    found: dict[int, capacity.Load] = {}
    for each in made:
        key = id(each.members)
        if key not in found:
            found[key] = capacity.load(each.members.ids, each.members.domains, policy, population)
    return [found[id(each.members)] for each in made]


def _course(
    survey: surveys.Survey,
    selection: selections.Selection,
    made: Sequence[waves.Part],
    loads: Sequence[capacity.Load],
    fleet: Fleet,
) -> estimates.Course:
    policy = survey.request.policy
    phases = {id(each.phase): each.phase for each in made}
    paces = {key: estimates.pace(phase, survey.kinds, policy, fleet.memory) for key, phase in phases.items()}
    return estimates.course(
        bakes=[each.wave.bake_duration for each in made],
        rounds=[capacity.rounds(each, policy, selection.population) for each in loads],
        paces=[paces[id(each.phase)] for each in made],
        policy=policy,
    )


def _check_freezes(survey: surveys.Survey) -> None:
    endless = [each.freeze for each in survey.freezings if each.is_in_force and each.freeze.until is None]
    if endless and survey.request.level is model.ValidationLevel.STRICT:
        first = endless[0]
        raise errors.RefusedError(
            f"cannot plan for selector {survey.request.selector!r}: freeze {first.id} has no end: {first.reason}",
            code="frozen_now",
            field="selector",
            value=survey.request.selector,
            rule="with STRICT no selected node may be under a freeze that has no end",
        )


def _warnings(
    survey: surveys.Survey,
    selection: selections.Selection,
    loads: Sequence[capacity.Load],
    course: estimates.Course,
    fleet: Fleet,
) -> tuple[model.PlanWarning, ...]:
    """Find what is worth knowing.

    Raises:
        RefusedError: A limit means nothing, or the request is STRICT and there is a warning.
    """
    request = survey.request
    found = [*thresholds.find(request, loads, selection.population, course, fleet.at)]
    for each in found:
        if each.is_final or request.level is not model.ValidationLevel.PERMISSIVE:
            raise each.error()
    sight = _sight(survey, selection, loads)
    warnings = (*(model.PlanWarning(each.code, each.message) for each in found), *cautions.find(sight))
    if warnings and request.level is model.ValidationLevel.STRICT:
        raise errors.RefusedError(
            f"cannot plan with level STRICT: {'; '.join(each.message for each in warnings)}",
            code="warning_refused",
            field="level",
            value="STRICT",
            rule=f"with STRICT there must be no warning, and there is {', '.join(each.code for each in warnings)}",
        )
    return warnings


def _sight(survey: surveys.Survey, selection: selections.Selection, loads: Sequence[capacity.Load]) -> cautions.Sight:
    policy, population = survey.request.policy, selection.population
    counted = [(survey.verdicts[kind].moves, count) for kind, count in selection.kinds.items()]
    together = [capacity.parallel(each, policy, population, counts_down=False) for each in loads]
    return cautions.Sight(
        request=survey.request,
        total=population.total,
        together=max(together, default=0),
        changing=len(selection.changing.ids),
        offline=selection.offline,
        frozen=selection.frozen,
        homeless=selection.changing.domains.count("") if policy.domain_label else 0,
        stranded=sum(count for moves, count in counted if any(each.no_way_back for each in moves)),
        restarted=sum(count * sum(each.is_restart for each in moves) for moves, count in counted),
    )


def _blast_radius(
    request: model.UpgradeRequest, selection: selections.Selection, loads: Sequence[capacity.Load]
) -> model.BlastRadius:
    domains = Counter(selection.changing.domains if request.policy.domain_label else ())
    return model.BlastRadius(
        nodes=len(selection.changing.ids),
        of_nodes=selection.population.total,
        first_wave=loads[0].changes if loads else 0,
        domains=tuple(sorted(domains.items())),
    )
