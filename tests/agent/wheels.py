"""Wheels and requirements for tests, written by hand; nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping


def wheel(name: str, version: str, code: str, requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """Make a pure wheel with one module; returns its file name and bytes."""
    info = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\nrun-{name} = {name}:main\n",
    }
    record = "".join(f"{path},sha256={_hash(text)},{len(text)}\n" for path, text in files.items())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", out.getvalue()


def lock(wheels: Mapping[str, bytes]) -> str:
    """Write requirements that lock these wheels."""
    lines = []
    for name, data in sorted(wheels.items()):
        package, version = name.split("-")[:2]
        lines.append(f"{package}=={version} \\\n    --hash=sha256:{hashlib.sha256(data).hexdigest()}\n")
    return "# locked\n" + "".join(lines)


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
