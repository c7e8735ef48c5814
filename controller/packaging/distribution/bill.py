"""The bill of materials: a CycloneDX document of everything that the lock pins.

Rules kept here: it is made from the lock, so it names what is tested and nothing else; the same lock gives the same
bytes; the scope of each component says where it comes: `required` with every agent, `optional` with a controller,
`excluded` in development alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from controller.packaging.distribution import needs
from controller.packaging.distribution.errors import DistributionError
from controller.packaging.distribution.lock import Pin

PROJECT = "instar"
MARKER = "instar:marker"  # the property that says for which Pythons and platforms a component is
# Who is reached first has the narrower scope.
SCOPES = (
    (frozenset[str](), ComponentScope.REQUIRED),
    (frozenset({"controller", "postgres"}), ComponentScope.OPTIONAL),
    (frozenset({"dev"}), ComponentScope.EXCLUDED),
)


def document(pins: Sequence[Pin], version: str, made_at: datetime) -> str:
    """Make the document.

    Args:
        pins: What the lock says.
        version: Of this project.
        made_at: What it says of when it was made.

    Returns:
        CycloneDX 1.6 as JSON.

    Raises:
        DistributionError: Nobody needs a package of the lock.
    """
    names = frozenset(pin.name for pin in pins)
    project = _project(version)
    parts = {pin: _component(pin, scope) for pin, scope in _scopes(pins, names).items()}
    bom = Bom(components=parts.values(), serial_number=_serial(pins, version), metadata=_metadata(project, made_at))
    by_name = {name: [part for pin, part in parts.items() if pin.name == name] for name in names}
    for name, needed in needs.reached(PROJECT, frozenset({"dev"}), names).items():
        for part in [project] if name == PROJECT else by_name[name]:
            bom.register_dependency(part, [one for other in needed for one in by_name.get(other, [])])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _scopes(pins: Sequence[Pin], names: frozenset[str]) -> Mapping[Pin, ComponentScope]:
    found: dict[str, ComponentScope] = {}
    for extras, scope in SCOPES:
        for name in needs.reached(PROJECT, extras, names):
            found.setdefault(name, scope)
    if lost := sorted(names - found.keys()):
        raise DistributionError(f"cannot say who needs {', '.join(lost)}: run `make lock`, then `make setup`")
    return {pin: found[pin.name] for pin in pins}


def _project(version: str) -> Component:
    return Component(
        name=PROJECT,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=PROJECT,
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )


def _component(pin: Pin, scope: ComponentScope) -> Component:
    where = PackageURL("pypi", name=pin.name, version=pin.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(where.to_string()),
        comment="each file that may be installed for it",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digits) for digits in pin.hashes],
    )
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{pin.name}@{pin.version}",
        scope=scope,
        purl=where,
        external_references=[files],
        properties=[Property(name=MARKER, value=pin.marker)] if pin.marker else [],
    )


def _metadata(project: Component, made_at: datetime) -> BomMetaData:
    return BomMetaData(
        component=project, timestamp=made_at, lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.BUILD)]
    )


def _serial(pins: Sequence[Pin], version: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, repr((PROJECT, version, pins)))
