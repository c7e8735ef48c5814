"""How the controller's listeners speak TLS: what gRPC asks at each new connection, answered from `controller.trust`.

Rules kept: the answer comes from a thread of gRPC's, so it is quick and touches nothing of the loop; nothing is built
anew where nothing has changed; TLS 1.3 alone (`controller.config.tls` pins it, `controller.trust.peers` looks again).
"""

from __future__ import annotations

from collections.abc import Callable

import grpc

from controller.trust import listening

_Configuration = grpc.ServerCertificateConfiguration


def mutual(own: listening.Listening) -> grpc.ServerCredentials:
    """For those who have a certificate, agents and users of the API: who shows none gets no connection."""
    return _dynamic(own, lambda shown: shown.callers.encode(), asks=True)


def of_server(own: listening.Listening) -> grpc.ServerCredentials:
    """For nodes that have no certificate yet: the controller alone shows one."""
    return _dynamic(own, lambda _: None, asks=False)


def _dynamic(
    own: listening.Listening, roots: Callable[[listening.Shown], bytes | None], *, asks: bool
) -> grpc.ServerCredentials:
    last = own.shown()

    def configured(shown: listening.Shown) -> _Configuration:
        pair = (shown.key.encode(), shown.chain.encode())
        return grpc.ssl_server_certificate_configuration([pair], roots(shown))

    def fetch() -> _Configuration | None:
        nonlocal last
        shown = own.shown()
        if shown is last:
            return None
        last = shown
        return configured(shown)

    return grpc.dynamic_ssl_server_credentials(
        configured(last),
        fetch,  # type: ignore[arg-type]  # None keeps what holds, as gRPC documents and its stubs do not
        require_client_authentication=asks,
    )
