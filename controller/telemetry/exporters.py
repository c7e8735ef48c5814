"""The exporters of the OpenTelemetry SDK, made as the settings say.

Rules kept: whatever the settings know is handed over, so that an exporter looks for nothing of it in the environment,
where it would read some variables otherwise than the specification does (time-outs in seconds; a client's key only
beside an authority), or prefer others (authorities for all of a host's programs). Each exporter is imported only where
it is the one.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.sdk.trace import export

from controller.config import traces

if TYPE_CHECKING:
    import requests


def make(to: traces.Traces) -> export.SpanExporter:
    """Make the exporter that sends to a receiver.

    Raises:
        OSError: A file of a certificate has gone since the settings were read.
    """
    return _over_http(to) if to.protocol is traces.Protocol.HTTP else _over_grpc(to)


def _over_grpc(to: traces.Traces) -> export.SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter  # noqa: PLC0415  # only where it is the one

    is_insecure = _is_insecure(to)
    return trace_exporter.OTLPSpanExporter(
        endpoint=to.endpoint,
        insecure=is_insecure,
        credentials=None if is_insecure else _credentials(to),
        headers=tuple((name, value.reveal()) for name, value in to.headers),
        timeout=to.timeout.total_seconds(),
        compression=grpc.Compression.Gzip
        if to.compression is traces.Compression.GZIP
        else grpc.Compression.NoCompression,
    )


def _is_insecure(to: traces.Traces) -> bool:
    scheme = urllib.parse.urlsplit(to.endpoint).scheme if "://" in to.endpoint else ""
    return to.is_insecure if not scheme else scheme == "http"


def _credentials(to: traces.Traces) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(_bytes(to.certificate), _bytes(to.client_key), _bytes(to.client_certificate))


def _bytes(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


def _over_http(to: traces.Traces) -> export.SpanExporter:
    from opentelemetry.exporter.otlp.proto import http  # noqa: PLC0415  # as above
    from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415

    is_packed = to.compression is traces.Compression.GZIP
    return trace_exporter.OTLPSpanExporter(
        endpoint=to.endpoint,
        session=_session(),
        certificate_file=_text(to.certificate),
        client_key_file=_text(to.client_key),
        client_certificate_file=_text(to.client_certificate),
        headers={name: value.reveal() for name, value in to.headers},
        timeout=to.timeout.total_seconds(),
        compression=http.Compression.Gzip if is_packed else http.Compression.NoCompression,
    )


def _session() -> requests.Session:
    import requests  # noqa: PLC0415  # as above

    class _Session(requests.Session):
        """One in which authorities that are named for spans stand before those that the host has for everything."""

        def merge_environment_settings(
            self,
            url: str,
            proxies: dict[str, str] | None,
            stream: bool | None,  # noqa: FBT001  # as the library has it
            verify: bool | str | None,  # noqa: FBT001
            cert: str | tuple[str, str] | None,
        ) -> dict[str, Any]:
            named = self.verify if verify is None else verify
            return super().merge_environment_settings(url, proxies, stream, named, cert)

    return _Session()


def _text(file: Path | None) -> str | None:
    return None if file is None else str(file)
