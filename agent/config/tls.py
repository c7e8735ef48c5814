"""TLS 1.3 and nothing older, in a process that speaks gRPC; imports nothing that imports gRPC."""

from __future__ import annotations

import os

# gRPC for Python has no word for the least version. Its ciphers count up to TLS 1.2 alone, and none of these fits keys
# on P-256, which all of ours are: a handshake of TLS 1.2 ends without a common cipher, and one of 1.3 is as ever.
CIPHERS_NAME, CIPHERS = "GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES128-GCM-SHA256"


def pin_version() -> None:
    """Let gRPC speak TLS 1.3 alone; comes before gRPC is imported."""
    os.environ[CIPHERS_NAME] = CIPHERS
