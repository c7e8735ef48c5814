"""The releases of one run, as the seed draws them: two components, of which one now and then requires the other.

Rules kept: most versions are good; some crash, hang or die later. A version may be a barrier that every way passes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from controller.core import model
from tests.agent import bundles
from tests.simulation import host, keeper
from tests.simulation import loop as loops

BAD_SHARE = 0.4  # of the versions
BARRIER_SHARE = 0.2  # of the good versions of what has barriers
REQUIRING_SHARE = 0.25  # of the versions of what requires the other component
BAKE_SECONDS_MAX = 10  # on a barrier
WEB, CACHE = (model.ComponentName(name) for name in host.COMPONENTS)
MANIFEST = """name = "{component}"
version = "{version}"
driver = "handover"
command = ["python", "main.py"]
prepare_timeout = "10s"
drain_timeout = "10s"
[[sockets]]
name = "http"
"""
REQUIREMENT = """[[requirements]]
component = "{component}"
versions = "{versions}"
"""


@dataclass(slots=True)
class Shelf:
    """What was made so far.

    Args:
        blobs: Where the network finds the bundles.
        behaviours: How the instances of each digest behave.
        faults: Where bad versions are counted.
        releases: Of each component, oldest first.
        barriers: Versions of the first component that every way passes.
    """

    loop: loops.VirtualLoop
    blobs: dict[str, bytes]
    behaviours: dict[str, keeper.Behaviour]
    faults: Counter[str]
    releases: dict[model.ComponentName, list[model.Release]] = field(
        default_factory=lambda: {model.ComponentName(name): [] for name in host.COMPONENTS}
    )
    barriers: list[model.Barrier] = field(default_factory=list)

    def make(self, component: model.ComponentName) -> model.Release:
        """Make the next version of a component; the first is good and requires nothing."""
        known = self.releases[component]
        version = f"1.{len(known)}.0"
        needed = self._needed() if component == WEB and known else None
        release = self._bundle(component, version, needed)
        behaviour = self._behaviour() if known else keeper.Behaviour.GOOD
        self.behaviours[release.digest] = behaviour
        known.append(release)
        self._draw_barrier(release, behaviour)
        return release

    def _needed(self) -> model.Release | None:
        is_needed = self.loop.random.random() < REQUIRING_SHARE
        return self.releases[CACHE][-1] if is_needed else None

    def _bundle(self, component: model.ComponentName, version: str, needed: model.Release | None) -> model.Release:
        wanted = () if needed is None else (model.Requirement(needed.component, f">={needed.version}"),)
        text = MANIFEST.format(component=component, version=version)
        text += "".join(REQUIREMENT.format(component=each.component, versions=each.versions) for each in wanted)
        data = bundles.bundle({"instar.toml": text.encode(), "main.py": b"x" * 20_000})
        digest = model.Digest(bundles.digest_of(data))
        self.blobs[digest] = data
        return model.Release(
            component=component,
            version=version,
            digest=digest,
            size_bytes=len(data),
            driver="handover",
            manifest_json="{}",
            published_at=host.EPOCH,
            publisher=host.ACTOR,
            requirements=wanted,
        )

    def _behaviour(self) -> keeper.Behaviour:
        draw = self.loop.random
        if draw.random() >= BAD_SHARE:
            return keeper.Behaviour.GOOD
        behaviour = draw.choice([each for each in keeper.Behaviour if each is not keeper.Behaviour.GOOD])
        self.faults[behaviour.value] += 1
        return behaviour

    def _draw_barrier(self, release: model.Release, behaviour: keeper.Behaviour) -> None:
        draw = self.loop.random
        is_first = len(self.releases[release.component]) == 1
        if release.component != WEB or is_first or behaviour is not keeper.Behaviour.GOOD:
            return
        if draw.random() < BARRIER_SHARE:
            bake = draw.randint(0, BAKE_SECONDS_MAX)
            self.barriers.append(model.Barrier(WEB, release.version, host.seconds(bake)))
