"""What the gRPC listener lets through at most: each bound in this one place, with its unit and its reason.

Rules kept here: nothing that a peer decides is unbounded: bytes of a message and of metadata, streams, connections,
handshakes, pings, age; what a bound does to a peer is in `docs/limits.md`. Left out: what one caller may ask
(`quotas`), new sessions (`admission`), wrong tokens (`attempts`), and what each service bounds by itself.
"""

from __future__ import annotations

from datetime import timedelta

from controller.config import quotas

RECEIVED_BYTES_MAX = 2 << 20  # 2 MiB of one message from a peer: twice the largest chunk of a bundle
SENT_BYTES_MAX = 64 << 20  # 64 MiB of one answer: a rollout of 100,000 nodes; as much as our clients take
METADATA_BYTES_SOFT = 8 << 10  # 8 KiB of all metadata of a call: what peers are told
METADATA_BYTES_MAX = 16 << 10  # 16 KiB: above it a call is refused for certain, between the two with growing chance
STREAMS_MAX = 128  # at the same time on one connection; the peer lets further ones wait
HANDSHAKE_DEADLINE = timedelta(seconds=5)  # until a connection has said what it is
PING_INTERVAL_MIN = timedelta(seconds=10)  # agents ping each 30 s; who goes on below it loses the connection
PING_STRIKES_MAX = 2  # pings that come too early and are forgiven
CONNECTION_GRACE = timedelta(minutes=1)  # for the streams of a connection that has reached its age
ENROLLING_BYTES_MAX = 16 << 10  # 16 KiB of one message there: a token and a certificate request have some 600 bytes
ENROLLING_AGE = timedelta(minutes=1)  # of a connection there: whoever comes in has one thing to ask
KEEPALIVE = timedelta(seconds=30)  # a peer that vanished is noticed within this and the next
KEEPALIVE_TIMEOUT = timedelta(seconds=10)  # for the answer to a ping
_MS = timedelta(milliseconds=1)

Options = tuple[tuple[str, int], ...]


def options(allowed: quotas.Quotas) -> Options:
    """The options of the listener's server, spelled as gRPC takes them.

    Of pings the option that counts is ``min_ping_interval_without_data_ms``; the longer name of gRPC's own macro is
    taken without a word, and changes nothing.
    """
    return (
        ("grpc.so_reuseport", 0),  # a second controller on one port shall fail, not share
        ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
        ("grpc.max_send_message_length", SENT_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_SOFT),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.max_allowed_incoming_connections", allowed.connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_DEADLINE // _MS),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN // _MS),
        ("grpc.http2.max_ping_strikes", PING_STRIKES_MAX),
        ("grpc.max_connection_age_ms", allowed.connection_age // _MS),
        ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE // _MS),
        ("grpc.keepalive_time_ms", KEEPALIVE // _MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT // _MS),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def enrolling_options(allowed: quotas.Quotas) -> Options:
    """The options of the server for nodes that have no certificate yet: as above, and narrower where that is enough."""
    narrower = {
        "grpc.max_receive_message_length": ENROLLING_BYTES_MAX,
        "grpc.max_connection_age_ms": ENROLLING_AGE // _MS,
    }
    return tuple((dict(options(allowed)) | narrower).items())
