"""Where spans go, as the standard environment variables of OpenTelemetry say.

Rules kept: a variable of traces stands before the like one of all signals, and an empty one is none; where no endpoint
is named, none of the others is looked at; a header may hold a secret, so no refusal repeats one. Times are
milliseconds, as the specification says. Left out: sampling (rollouts are rare) and how it is sent
(`controller.telemetry.exporters`).

Source: OpenTelemetry specification, OTLP exporter configuration, and environment variables of the SDK.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path

from controller.config import fields
from controller.core import secret

TIMEOUT_DEFAULT = timedelta(seconds=3)
TIMEOUT_MAX = timedelta(minutes=1)
HTTP_PATH = "v1/traces"  # below an endpoint that is that of all signals
_TIMEOUT_RULE = f"milliseconds, from 1 to {TIMEOUT_MAX // timedelta(milliseconds=1)}"
_PAIRS_RULE = "key=value, key=value, with percent-encoded values"
_NAME = re.compile(r"[!-+\x2d-<>-~]+")  # of a header or an attribute: visible ASCII less comma and equals sign


@unique
class Protocol(Enum):
    """How spans are sent, as OpenTelemetry names it."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


@unique
class Compression(Enum):
    """What is done to a request before it is sent."""

    NONE = "none"
    GZIP = "gzip"


@dataclass(frozen=True, slots=True)
class Traces:
    """A receiver of spans, and how it is spoken to.

    Args:
        endpoint: URL of an OTLP receiver, over HTTP with the path; over gRPC also host and port alone.
        headers: What each request shows besides, names in lower case.
        timeout: For one request, the exporter's own retries included.
        certificate: File of the authorities that its certificate is checked against; None for those of the system.
        client_key: File of the key that is shown to it; None for none.
        client_certificate: File of the certificate to that key; None for none.
        is_insecure: Whether an endpoint over gRPC that names no scheme is spoken to without TLS.
        resource: What the controller says of itself, besides and instead of what it would say by itself.
    """

    endpoint: str
    protocol: Protocol = Protocol.GRPC
    headers: tuple[tuple[str, secret.Secret[str]], ...] = ()
    timeout: timedelta = TIMEOUT_DEFAULT
    compression: Compression = Compression.NONE
    certificate: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None
    is_insecure: bool = False
    resource: Mapping[str, str] = field(default_factory=dict)


def read(environment: Mapping[str, str], endpoint: str = "") -> Traces | None:
    """Read the variables; None where spans go nowhere.

    Args:
        environment: The variables of the process.
        endpoint: What the configuration file names, for where no variable does.

    Raises:
        InvalidRequestError: There is an endpoint, and a value breaks its rule.
    """
    given = _Variables(environment)
    base, own = given.of_all("ENDPOINT") or endpoint, given.of_traces("ENDPOINT")
    if given.is_disabled() or not (base or own):
        return None
    if given.choice("OTEL_TRACES_EXPORTER", ("otlp", "none"), "otlp") == "none":
        return None
    protocol = Protocol(given.choice(given.name("PROTOCOL"), [each.value for each in Protocol], Protocol.GRPC.value))
    name = given.name("ENDPOINT")
    return Traces(
        endpoint=_endpoint(name, base, own, protocol),
        protocol=protocol,
        headers=tuple((key.lower(), secret.Secret(value)) for key, value in given.pairs(given.name("HEADERS"))),
        timeout=given.timeout(given.name("TIMEOUT")),
        compression=Compression(given.choice(given.name("COMPRESSION"), [each.value for each in Compression], "none")),
        certificate=given.file(given.name("CERTIFICATE")),
        client_key=given.key_pair("CLIENT_KEY", "CLIENT_CERTIFICATE"),
        client_certificate=given.key_pair("CLIENT_CERTIFICATE", "CLIENT_KEY"),
        is_insecure=given.choice(given.name("INSECURE"), ("true", "false"), "false") == "true",
        resource=given.resource(),
    )


def _endpoint(name: str, base: str, own: str, protocol: Protocol) -> str:
    url = own or base
    rule = "http:// or https:// with a host, without credentials"
    try:
        parts = urllib.parse.urlsplit(url if "://" in url or protocol is Protocol.HTTP else f"//{url}")
        is_plain = parts.port != 0 and not (parts.username or parts.password)
    except ValueError:
        fields.refuse(name, "", rule)
    schemes = ("http", "https", "") if protocol is Protocol.GRPC else ("http", "https")
    if parts.scheme not in schemes or not parts.hostname or not is_plain:
        fields.refuse(name, parts.hostname or "", rule)  # without what may be a secret in it
    return url if own or protocol is Protocol.GRPC else f"{base.removesuffix('/')}/{HTTP_PATH}"


class _Variables:
    """The variables of the process, each read by its kind."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def _text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def of_all(self, what: str) -> str:
        return self._text(f"OTEL_EXPORTER_OTLP_{what}")

    def of_traces(self, what: str) -> str:
        return self._text(f"OTEL_EXPORTER_OTLP_TRACES_{what}")

    def name(self, what: str) -> str:
        """Say which of the two variables counts."""
        return f"OTEL_EXPORTER_OTLP_{'TRACES_' if self.of_traces(what) else ''}{what}"

    def is_disabled(self) -> bool:
        return self._text("OTEL_SDK_DISABLED").lower() == "true"

    def choice(self, name: str, choices: tuple[str, ...] | list[str], default: str) -> str:
        text = self._text(name).lower() or default
        if text not in choices:
            fields.refuse(name, text, f"one of {', '.join(choices)}")
        return text

    def timeout(self, name: str) -> timedelta:
        text = self._text(name)
        if not text:
            return TIMEOUT_DEFAULT
        if not re.fullmatch(r"[0-9]{1,9}", text):
            fields.refuse(name, text, _TIMEOUT_RULE)
        found = timedelta(milliseconds=int(text))
        if not timedelta() < found <= TIMEOUT_MAX:
            fields.refuse(name, text, _TIMEOUT_RULE)
        return found

    def file(self, name: str) -> Path | None:
        text = self._text(name)
        if not text:
            return None
        try:
            Path(text).read_bytes()
        except OSError as fault:
            fields.refuse(name, text, f"a file that can be read ({fault.strerror})")
        return Path(text).absolute()

    def key_pair(self, what: str, other: str) -> Path | None:
        """Read one file of a key and its certificate, which are of no use alone."""
        name, beside = self.name(what), self.name(other)
        if self._text(beside) and not self._text(name):
            fields.refuse(name, "", f"given where {beside} is")
        return self.file(name)

    def pairs(self, name: str) -> Iterator[tuple[str, str]]:
        for item in filter(None, map(str.strip, self._text(name).split(","))):
            key, equals, value = item.partition("=")
            if not equals or not _NAME.fullmatch(key.strip()):
                fields.refuse(name, "", _PAIRS_RULE)
            yield key.strip(), urllib.parse.unquote(value.strip())

    def resource(self) -> dict[str, str]:
        found = dict(self.pairs("OTEL_RESOURCE_ATTRIBUTES"))
        service = self._text("OTEL_SERVICE_NAME")
        return found | ({"service.name": service} if service else {})
