"""Real OTLP receivers on loopback that keep what they get."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvicorn
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from starlette import applications, requests, responses, routing

HTTP_TYPE = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a receiver that checks who calls."""

    certificate: Path
    key: Path
    callers: Path


class Kept:
    """What a receiver has got."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.headers: list[Mapping[str, str]] = []

    def keep(self, request: trace_service_pb2.ExportTraceServiceRequest, headers: Mapping[str, str]) -> None:
        self.requests.append(request)
        self.headers.append(headers)

    def spans(self) -> list[tuple[resource_pb2.Resource, trace_pb2.Span]]:
        """All spans so far, each with its resource."""
        return [
            (resource.resource, span)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Collector(Kept, trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP/gRPC receiver that keeps what it gets."""

    def __init__(self, tls: Tls | None = None) -> None:
        super().__init__()
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated
        self.port = _listen(self._server, tls)
        self.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._server.start()

    def Export(  # noqa: N802 gRPC names its methods
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.keep(request, {key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(None).wait()


def _listen(server: grpc.Server, tls: Tls | None) -> int:
    if tls is None:
        return server.add_insecure_port("127.0.0.1:0")
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], tls.callers.read_bytes(), require_client_auth=True)
    return server.add_secure_port("127.0.0.1:0", credentials)


class HttpCollector(Kept):
    """A real OTLP/HTTP receiver that keeps what it gets."""

    def __init__(self, tls: Tls | None = None) -> None:
        super().__init__()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/v1/traces"
        answering = applications.Starlette(routes=[routing.Route("/v1/traces", self._export, methods=["POST"])])
        self._server = uvicorn.Server(_configured(answering, tls))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    async def _export(self, asked: requests.Request) -> responses.Response:
        assert asked.headers["content-type"] == HTTP_TYPE
        body = await asked.body()
        if asked.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.keep(trace_service_pb2.ExportTraceServiceRequest.FromString(body), dict(asked.headers))
        answer = trace_service_pb2.ExportTraceServiceResponse()
        return responses.Response(answer.SerializeToString(), media_type=HTTP_TYPE)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def _configured(answering: applications.Starlette, tls: Tls | None) -> uvicorn.Config:
    quiet = uvicorn.Config(answering, http="h11", ws="none", lifespan="off", log_config=None, access_log=False)
    if tls is not None:
        quiet.ssl_certfile, quiet.ssl_keyfile = str(tls.certificate), str(tls.key)
        quiet.ssl_ca_certs, quiet.ssl_cert_reqs = str(tls.callers), ssl.CERT_REQUIRED
    return quiet
