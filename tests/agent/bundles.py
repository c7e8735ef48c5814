"""Bundles for tests: canonical ones as tarfile writes them, and archives that are anything but."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf import json_format

from agent.config import manifest
from agent.core import model
from instar.v1 import manifest_pb2

MANIFEST = b"""\
name = "web"
version = "1.0.0"
driver = "handover"
command = ["python", "main.py"]
prepare_timeout = "2.5s"
[[sockets]]
name = "http"
[health]
period = "0.5s"
[health.http]
path = "/healthz"
"""
FILES: Mapping[str, bytes] = {"instar.toml": MANIFEST, "main.py": b"print('hello')\n", "lib/deep/data.bin": bytes(1000)}


def member(name: str, data: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def archive(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def bundle(files: Mapping[str, bytes] = FILES) -> bytes:
    return archive(member(name, data, 0o755 if name.endswith(".sh") else 0o644) for name, data in sorted(files.items()))


def hex_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(data: bytes) -> str:
    return f"sha256:{hex_of(data)}"


def put(state_dir: Path, data: bytes) -> str:
    """Lay a bundle where a finished fetch leaves it; returns its hexadecimal digits."""
    for folder in ("incoming", "releases", "components"):
        (state_dir / folder).mkdir(parents=True, exist_ok=True)
    hex_digits = hex_of(data)
    (state_dir / "incoming" / hex_digits).write_bytes(data)
    return hex_digits


def manifest_of(document: Mapping[str, object]) -> model.Manifest:
    """Read the proto JSON of a manifest, as the verifier prints it."""
    return manifest.convert(json_format.ParseDict(dict(document), manifest_pb2.Manifest()))
