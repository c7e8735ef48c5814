"""Why a node stands against what is asked of it: each refusal names the nodes, the field and the rule.

Rules kept: a node is not offered a digest that it left for cause (G9), nor a version below what runs unless the request
lets it go down, nor one whose driver, required components or state it cannot serve, nor one that breaks what another
component of it requires; what cannot be a hot swap is refused here, beforehand, unless the policy allows a restart.
What has drifted, because somebody changed it by hand, is refused: what it would go back to is not what was once proven
there. The exceptions set it right: the very release that the node still holds as permanent, also where that is a lower
version; an installation of what is gone; and whatever asks for no version (REMOVE and STOP end what runs, START and
RESTART begin what was committed anew). Left out: the ways through the version graph (`routes`), and what becomes of a
refusal at each validation level (`planner`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.core import aims, errors, methods, model, versions

NAMES_SHOWN_MAX = 5  # names of nodes in one message; the rest is a number

# Where several rules are broken, the request is refused for the first of them.
RULES = {
    "digest_left_for_cause": "a node is not offered a digest that it left for cause",
    "component_drifted": "what has drifted is restarted, removed, or led to the version that is permanent there, before"
    " all else",
    "component_stopped": "only a start ends what a stop began",
    "downgrade_not_allowed": "an upgrade must not lead to a lower version without downgrade_allowed; a revert may",
    "edge_blocked": "nobody takes a blocked edge of the version graph",
    "no_path": "a way of the version graph must lead from what runs to the target",
    "driver_not_supported": "a node must have the capability driver.{}",
    "requirement_missing": "a node must have the components that a release requires{}",
    "requirement_broken": "at no time may a component lack what it requires",
    "state_schema_newer": "a release reads the state that it finds, or one of the two releases declares how to migrate"
    " it",
    "state_migration_missing": "a release reads the state that it finds, or one of the two releases declares how to"
    " migrate it",
    "hot_swap_not_possible": "what cannot be a hot swap needs policy.restart_allowed and a driver that can restart",
    "hot_swap_needed": "with BLUE_GREEN the old version serves on beside the new one on every node",
}
_RANKS = {code: rank for rank, code in enumerate(RULES)}

# What runs on a node at some moment of its way: version and digest by component.
State = Mapping[model.ComponentName, tuple[str, model.Digest]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What stands against an aim.

    Args:
        why: In a few words, before the names of the nodes.
        detail: What the rule has in place of its brackets.
    """

    code: str
    why: str
    aim: aims.Aim
    detail: str = ""

    @property
    def rank(self) -> int:
        """Where it stands in `RULES`."""
        return _RANKS[self.code]

    @property
    def message(self) -> str:
        """One sentence on one node."""
        return f"cannot plan for {self.aim.field} {self.aim.value}: {self.why.rstrip(',')}"

    def error(self, ids: Sequence[model.NodeId]) -> errors.RefusedError:
        """Make the error that names the nodes."""
        return errors.RefusedError(
            f"cannot plan for {self.aim.field} {self.aim.value}: {self.why} on {names(ids)}",
            code=self.code,
            field=self.aim.field,
            value=self.aim.value,
            rule=RULES[self.code].format(self.detail),
        )


@dataclass(frozen=True, slots=True)
class Leap:
    """One hop of a node.

    Args:
        running: Version before; empty for an installation.
        old: Its release; None for an installation, or where it was never published here.
        new: The release that the hop leads to.
        state: What runs on the node before it.
        choice: How it would be done.
    """

    aim: aims.Aim
    node: model.Node
    running: str
    old: model.Release | None
    new: model.Release
    state: State
    choice: methods.Choice


def names(ids: Sequence[str]) -> str:
    """Name nodes in a message; a long list is cut."""
    rest = len(ids) - NAMES_SHOWN_MAX
    return ", ".join(ids[:NAMES_SHOWN_MAX]) + (f" and {rest} more" if rest > 0 else "")


def against_start(aim: aims.Aim, release: model.Release, node: model.Node, *, may_go_down: bool) -> Refusal | None:
    """Say what stands against leading a node to a release at all, whatever the way."""
    installed = node.components.get(release.component)
    if release.digest in node.bad_digests:
        return Refusal("digest_left_for_cause", f"{aim.component} {release.version} was left for cause", aim)
    if installed is None:
        return None
    is_drifted = node.has_drifted(release.component)
    if is_drifted and not is_set_right(node, release):
        return Refusal("component_drifted", f"{aim.component} was changed by hand", aim)
    if installed.is_stopped:
        return Refusal("component_stopped", f"{aim.component} was stopped on purpose", aim)
    if not is_drifted and not may_go_down and versions.is_lower(release.version, installed.version):
        return Refusal("downgrade_not_allowed", f"{aim.component} {release.version} is older than what runs", aim)
    return None


def is_set_right(node: model.Node, release: model.Release) -> bool:
    """Tell whether a release is what a node with drift would go back to."""
    return node.has_drifted(release.component) and node.components[release.component].permanent_digest == release.digest


def against_leap(leap: Leap, request: model.UpgradeRequest, known: aims.Book) -> Refusal | None:
    """Say what stands against one hop; the first of the rules that it breaks."""
    after = versions_of(leap.state) | {leap.new.component: leap.new.version}
    found = (
        *_against_driver(leap),
        *_against_missing(leap, known),
        *against_broken(leap.aim, leap.state, after, known),
        *_against_state(leap, request.policy),
        *_against_method(leap, request.strategy),
    )
    return next(iter(found), None)


def versions_of(state: State) -> dict[model.ComponentName, str]:
    """Give the versions that run."""
    return {name: version for name, (version, _) in state.items()}


def against_broken(
    aim: aims.Aim, before: State, after: Mapping[model.ComponentName, str], known: aims.Book
) -> Iterator[Refusal]:
    """Say what other components would lack that they have now, once the component of an aim has changed."""
    had = versions_of(before)
    for name, (version, digest) in before.items():
        release = known.find(name, digest)
        for each in () if release is None or name == aim.component else release.requirements:
            if each.component == aim.component and is_met(each, had) and not is_met(each, after):
                wanted = f"{each.component} {each.versions}".rstrip()
                then = (
                    f"{aim.component} {after[aim.component]}"
                    if aim.component in after
                    else f"the removal of {aim.component}"
                )
                yield Refusal("requirement_broken", f"{then} breaks {name} {version}, which requires {wanted},", aim)


def is_met(required: model.Requirement, running: Mapping[model.ComponentName, str]) -> bool:
    """Tell whether what runs is what another component requires."""
    version = running.get(required.component)
    return version is not None and versions.matches(version, required.versions)


def _against_driver(leap: Leap) -> Iterator[Refusal]:
    driver = leap.new.driver
    if f"driver.{driver}" not in leap.node.capabilities:
        why = f"{leap.new.component} {leap.new.version} needs the driver {driver}, which is missing"
        yield Refusal("driver_not_supported", why, leap.aim, driver)


def _against_missing(leap: Leap, known: aims.Book) -> Iterator[Refusal]:
    running = versions_of(leap.state)
    for each in leap.new.requirements:
        if not is_met(each, running):
            wanted = f"{each.component} {each.versions}".rstrip()
            why = f"{leap.new.component} {leap.new.version} requires {wanted}, which is missing"
            yield Refusal("requirement_missing", why, leap.aim, _brought(each, known))


def _brought(required: model.Requirement, known: aims.Book) -> str:
    """Say what could bring a component that is missing: the newest release that would do, if there is one."""
    would_do = [
        each.version for each in known.of(required.component) if versions.matches(each.version, required.versions)
    ]
    newest = max(would_do, key=versions.order, default="")
    return f"; also {required.component}={newest} could bring it" if newest else ""


def _against_state(leap: Leap, policy: model.Policy) -> Iterator[Refusal]:
    if methods.can_reach(leap.old, leap.new, policy):
        return
    what = f"{leap.new.component} {leap.new.version}"
    if methods.is_newer_state(leap.old, leap.new):
        yield Refusal("state_schema_newer", f"{what} is of an older state schema than what runs", leap.aim)
    else:
        yield Refusal("state_migration_missing", f"{what} has no migration from the state schema", leap.aim)


def _against_method(leap: Leap, strategy: model.Strategy) -> Iterator[Refusal]:
    why = f"it can be no hot swap, since {leap.choice.why},"
    if leap.choice.method is None:
        yield Refusal("hot_swap_not_possible", why, leap.aim)
    elif leap.choice.method is model.Method.RESTART and strategy is model.Strategy.BLUE_GREEN:
        yield Refusal("hot_swap_needed", why, leap.aim)
