"""Why nodes stand against a target version: each refusal names the nodes, the field and the rule.

Rules kept: a node is not offered a digest that it left for cause (G9), nor a version below what runs, nor one whose
driver, required components or state it cannot serve; what cannot be a hot swap is refused here, beforehand, unless the
policy allows a restart. What has drifted, because somebody changed it by hand, is refused: what it would go back to is
not what was once proven there. The exceptions set it right: the very release that the node still holds as permanent,
also where that is a lower version; an installation of what is gone; and whatever asks for no version (REMOVE and STOP
end what runs, START and RESTART begin what was committed anew). Left out: requests of a kind, for which all this counts
for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.core import errors, methods, model, versions

NAMES_SHOWN_MAX = 5  # node names in one message; the rest is a number


def check(
    nodes: Iterable[model.Node],
    release: model.Release,
    releases: Mapping[model.Digest, model.Release],
    policy: model.Policy,
) -> None:
    """Refuse what the changing nodes cannot or must not take; ``releases`` tell what it is that they run.

    Raises:
        RefusedError: All nodes that stand against the first rule that is broken are named.
    """
    changing = list(nodes)
    _check_digests(changing, release)
    _check_drivers(changing, release)
    _check_requirements(changing, release)
    _check_states(changing, release, releases, policy)
    _check_methods(changing, release, releases, policy)


def names(nodes: list[model.Node]) -> str:
    """Name nodes in a message; a long list is cut."""
    shown = ", ".join(node.id for node in nodes[:NAMES_SHOWN_MAX])
    rest = len(nodes) - NAMES_SHOWN_MAX
    return f"{shown} and {rest} more" if rest > 0 else shown


def running(
    node: model.Node, release: model.Release, releases: Mapping[model.Digest, model.Release]
) -> model.Release | None:
    """Find the release that a node runs of the component; None where it runs none, or one that is not known here."""
    installed = node.components.get(release.component)
    return None if installed is None else releases.get(installed.digest)


def _check_digests(changing: list[model.Node], release: model.Release) -> None:
    what = f"{release.component} {release.version}"
    _refuse(
        [node for node in changing if release.digest in node.bad_digests],
        f"{what} was left for cause",
        "digest_left_for_cause",
        release,
        "a node is not offered a digest that it left for cause",
    )
    _refuse(
        [node for node in changing if node.has_drifted(release.component) and not _sets_right(node, release)],
        f"{release.component} was changed by hand",
        "component_drifted",
        release,
        "what has drifted is restarted, removed, or led to the version that is permanent there, before all else",
    )
    _refuse(
        [node for node in changing if _is_stopped(node, release)],
        f"{release.component} was stopped on purpose",
        "component_stopped",
        release,
        "only a start ends what a stop began",
    )
    _refuse(
        [node for node in changing if _is_downgrade(node, release)],
        f"{what} is older than what runs",
        "downgrade_not_allowed",
        release,
        "an upgrade must not lead to a lower version; a revert may",
    )


def _check_drivers(changing: list[model.Node], release: model.Release) -> None:
    _refuse(
        [node for node in changing if f"driver.{release.driver}" not in node.capabilities],
        f"{release.component} {release.version} needs the driver {release.driver}, which is missing",
        "driver_not_supported",
        release,
        f"a node must have the capability driver.{release.driver}",
    )


def _check_requirements(changing: list[model.Node], release: model.Release) -> None:
    for required in release.requirements:
        wanted = f"{required.component} {required.versions}".rstrip()
        _refuse(
            [node for node in changing if not _meets(node, required)],
            f"{release.component} {release.version} requires {wanted}, which is missing",
            "requirement_missing",
            release,
            "a node must have the components that a release requires",
        )


def _check_states(
    changing: list[model.Node],
    release: model.Release,
    releases: Mapping[model.Digest, model.Release],
    policy: model.Policy,
) -> None:
    rule = "a release reads the state that it finds, or one of the two releases declares how to migrate it"
    what = f"{release.component} {release.version}"
    stuck = [node for node in changing if not methods.can_reach(running(node, release, releases), release, policy)]
    newer = [node for node in stuck if methods.is_newer_state(running(node, release, releases), release)]
    _refuse(newer, f"{what} is of an older state schema than what runs", "state_schema_newer", release, rule)
    _refuse(stuck, f"{what} has no migration from the state schema", "state_migration_missing", release, rule)


def _check_methods(
    changing: list[model.Node],
    release: model.Release,
    releases: Mapping[model.Digest, model.Release],
    policy: model.Policy,
) -> None:
    against: dict[str, list[model.Node]] = {}
    for node in changing:
        choice = methods.choose(node, running(node, release, releases), release, policy)
        if choice.method is None:
            against.setdefault(choice.why, []).append(node)
    for why, refusing in against.items():
        _refuse(
            refusing,
            f"it can be no hot swap, since {why},",
            "hot_swap_not_possible",
            release,
            "what cannot be a hot swap needs policy.restart_allowed and a driver that can restart",
        )


def _meets(node: model.Node, required: model.Requirement) -> bool:
    found = node.components.get(required.component)
    return found is not None and versions.matches(found.version, required.versions)


def _is_stopped(node: model.Node, release: model.Release) -> bool:
    installed = node.components.get(release.component)
    return installed is not None and installed.is_stopped


def _sets_right(node: model.Node, release: model.Release) -> bool:
    installed = node.components.get(release.component)
    return installed is None or installed.permanent_digest == release.digest


def _is_downgrade(node: model.Node, release: model.Release) -> bool:
    installed = node.components.get(release.component)
    if installed is None or node.has_drifted(release.component):
        return False
    return versions.is_lower(release.version, installed.version)


def _refuse(against: list[model.Node], why: str, code: str, release: model.Release, rule: str) -> None:
    if against:
        raise errors.RefusedError(
            f"cannot plan for target_version {release.version}: {why} on {names(against)}",
            code=code,
            field="target_version",
            value=release.version,
            rule=rule,
        )
