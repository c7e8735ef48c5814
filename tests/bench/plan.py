"""How long a large fleet takes to plan, and how much memory that takes.

A hundred thousand nodes in fifty failure domains have five components that require each other, and all five are
upgraded by one request with a canary; some nodes are ahead already, and some cannot be reached. The same is planned for
a tenth of the nodes: `growth` is how many times longer the larger one takes. A plan is made by one thread that waits
for nothing, so its time is that of the processor: what one core takes that has nothing else to do. Each figure is the
best of some plans; memory is what the peak of the resident set grew by over the first of the large ones. NODES says
otherwise than a hundred thousand, for a quick look.
"""

from __future__ import annotations

import os
import resource
import time
from datetime import UTC, datetime, timedelta

from controller.core import model, planner
from tests.bench import result

NODES = int(os.environ.get("NODES", "100000"))
DOMAINS = 50
PLANS = 5
SHRINK = 10
KIB_PER_MIB = 1024
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("store", "queue", "rules", "billing", "web")  # each requires the one before it


def measure() -> result.Result:
    """Plan both fleets."""
    releases = [_release(index, version) for index in range(len(NAMES)) for version in ("1.0.0", "1.1.0", "2.0.0")]
    small = _fleet(NODES // SHRINK, releases)
    large = _fleet(NODES, releases)
    least = min(_seconds(small)[0] for _ in range(PLANS))
    before = _peak_mib()
    first, changes = _seconds(large)
    mib = _peak_mib() - before
    best = min([first, *(_seconds(large)[0] for _ in range(PLANS - 1))])
    figures = {"seconds": round(best, 3), "mib": round(mib, 1), "growth": round(best / least, 1), "changes": changes}
    return result.Result("plan", round(best, 3), "s", NODES, figures)


def _seconds(fleet: planner.Fleet) -> tuple[float, int]:
    began = time.process_time()
    plan = planner.plan(_request(), fleet)
    return time.process_time() - began, sum(len(each.changes) for each in plan.waves)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB


def _request() -> model.UpgradeRequest:
    return model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="2.0.0",
        strategy=model.Strategy.CANARY,
        selector="env=prod",
        parameters=model.CanaryParameters(2000),
        policy=model.Policy(floor_percent=80, domain_label="zone", domain_max_parallel=100),
        also=tuple(model.Target(model.ComponentName(name), "2.0.0") for name in NAMES[:-1]),
    )


def _release(index: int, version: str) -> model.Release:
    required = (model.Requirement(model.ComponentName(NAMES[index - 1]), f">={version}"),) if index else ()
    return model.Release(
        component=model.ComponentName(NAMES[index]),
        version=version,
        digest=_digest(index, version),
        size_bytes=10240,
        driver="handover",
        manifest_json="{}",
        published_at=NOW,
        publisher="ci",
        requirements=required,
    )


def _digest(index: int, version: str) -> model.Digest:
    return model.Digest(f"sha256:{index:032x}{version.replace('.', ''):0>32}")


def _fleet(nodes: int, releases: list[model.Release]) -> planner.Fleet:
    return planner.Fleet([_node(number) for number in range(nodes)], releases, at=NOW)


def _node(number: int) -> model.Node:
    version = "1.1.0" if number % 7 == 0 else "1.0.0"
    installed = (_installed(index, version) for index in range(len(NAMES)))
    return model.Node(
        id=model.NodeId(f"node-{number:06}"),
        labels={"env": "prod", "zone": f"zone-{number % DOMAINS}", "rack": f"rack-{number % 997}"},
        capabilities=frozenset({"driver.handover", "driver.process", f"kernel.{number % 3}"}),
        agent_version="0.1.0",
        fence=0,
        is_connected=number % 101 != 0,
        last_seen_at=NOW,
        components={each.name: each for each in installed},
    )


def _installed(index: int, version: str) -> model.InstalledComponent:
    digest = _digest(index, version)
    hour = timedelta(hours=1)
    name = model.ComponentName(NAMES[index])
    return model.InstalledComponent(name, version, digest, digest, model.Health.HEALTHY, hour)
