"""Where everything of a node lies: the one place that turns digests and names into paths.

Rules kept here: a digest or a name becomes part of a path only after it was checked against its form, so nothing that
comes over the link can leave the state directory. Left out: what stands in the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.config.errors import ConfigError

COMPONENT_NAME_CHARS_MAX = 40  # an instance id adds digest and attempt and stays under 60
COMPONENT_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9.-]{{0,{COMPONENT_NAME_CHARS_MAX - 2}}}[a-z0-9])?")
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
HEX = re.compile(r"[0-9a-f]{64}")
DIGEST_PREFIX = "sha256:"
BUNDLE_BYTES_MAX = 1024**3  # more than a component needs; hashed three times it stays within the verifier's CPU time
PARTIAL_SUFFIX = ".part"
DIGEST_SUFFIX = ".digest"
METADATA_NAME = "trust"  # no digest: bundles have other names


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below a state directory and a run directory."""

    state_dir: Path
    run_dir: Path

    @property
    def components_dir(self) -> Path:
        """One directory for each installed component, with its pointers."""
        return self.state_dir / "components"

    @property
    def releases_dir(self) -> Path:
        """One directory for each unpacked release, named by the hexadecimal digits of its digest."""
        return self.state_dir / "releases"

    @property
    def incoming_dir(self) -> Path:
        """Bundles that are being fetched, and whole ones that are not yet unpacked."""
        return self.state_dir / "incoming"

    @property
    def incoming_metadata_dir(self) -> Path:
        """What the controller said last of the releases of one component; nobody has checked it yet."""
        return self.incoming_dir / METADATA_NAME

    @property
    def trust_dir(self) -> Path:
        """What this node believes of releases, and what it will not go below."""
        return self.state_dir / "trust"

    @property
    def environments_dir(self) -> Path:
        """One virtual environment for each release that asks for one, named as its release is."""
        return self.state_dir / "environments"

    @property
    def data_dir(self) -> Path:
        """One directory for the state of each component that keeps any."""
        return self.state_dir / "data"

    @property
    def rollback_points_dir(self) -> Path:
        """One directory for the rollback points of each component."""
        return self.state_dir / "rollback_points"

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens."""
        return self.run_dir / "keeper.sock"

    def component_dir(self, component: str) -> Path:
        """Directory of the pointers of a component."""
        return self.components_dir / component_name(component)

    def release_dir(self, digest: str) -> Path:
        """Directory of an unpacked release; components are started by this path."""
        return self.releases_dir / hex_of(digest)

    def environment_dir(self, digest: str) -> Path:
        """Virtual environment of a release."""
        return self.environments_dir / hex_of(digest)

    def environment_digest(self, digest: str) -> Path:
        """File with the digest of the tree of that environment; written last, so without it there is none."""
        return self.environments_dir / f"{hex_of(digest)}{DIGEST_SUFFIX}"

    def data(self, component: str) -> Path:
        """State of a component, as STATE_DIRECTORY names it; its schema stands beside it."""
        return self.data_dir / component_name(component) / "state"

    def rollback_points(self, component: str) -> Path:
        """Rollback points of a component."""
        return self.rollback_points_dir / component_name(component)

    def bundle(self, digest: str) -> Path:
        """A whole bundle whose bytes have the digest."""
        return self.incoming_dir / hex_of(digest)

    def partial_bundle(self, digest: str) -> Path:
        """A bundle that is being fetched."""
        return self.incoming_dir / f"{hex_of(digest)}{PARTIAL_SUFFIX}"


def probe_socket(run_dir: Path, instance_id: str) -> Path:
    """The private probe listener of an instance; the keeper makes it."""
    return run_dir / f"{instance_id}.probe"


def component_name(name: str, *, field: str = "component") -> str:
    """Check the form of the name of a component and give it back.

    Raises:
        ConfigError: It is not of that form.
    """
    if not COMPONENT_NAME.fullmatch(name):
        rule = (
            f"lower-case letters, digits, dots and dashes, at most {COMPONENT_NAME_CHARS_MAX}, no dot or dash outside"
        )
        raise ConfigError(f"cannot use {name!r} as {field}: {rule}", field=field, value=name, rule=rule)
    return name


def hex_of(digest: str) -> str:
    """The hexadecimal digits of a digest, which name its files.

    Raises:
        ConfigError: It is not ``sha256:`` and 64 hexadecimal digits.
    """
    match = DIGEST.fullmatch(digest)
    if match is None:
        rule = "sha256: and 64 hexadecimal digits"
        raise ConfigError(f"cannot use {digest!r} as a digest: it is {rule}", field="digest", value=digest, rule=rule)
    return match.group(1)


def digest_of(hex_digits: str) -> str:
    """The digest that names a file or directory of the node."""
    digest = DIGEST_PREFIX + hex_digits
    hex_of(digest)
    return digest
