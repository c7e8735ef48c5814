"""The digest of a bundle, computed again from its unpacked tree.

Rules kept here: a bundle is canonical ustar (regular files only, sorted by name, mode 0644 or 0755, owner 0, time 0,
padded to 10,240 bytes), so the tree determines its bytes and the digest proves the tree: a file added, changed,
renamed or made executable shows. Anything but regular files and folders is refused. A virtual environment comes from
no bundle and has links and long names, so its digest is over lines of its own. Left out: reading bundles
(`agent.verifier`), making environments.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; the bytes are those of tarfile's USTAR_FORMAT.
"""

import hashlib
import os
import stat
from pathlib import Path

from agent.keeper import errors

BLOCK_BYTES = 512  # of ustar
RECORD_BYTES = 20 * BLOCK_BYTES  # tarfile's RECORDSIZE
NAME_MAX_BYTES = 100  # of the name field
PREFIX_MAX_BYTES = 155  # of the prefix field
SIZE_MAX_BYTES = 8**11 - 1  # eleven octal digits
READ_BYTES = 1 << 20


def tree_digest(root: Path) -> str:
    """Return "sha256:" and the hex digest of the bundle that unpacks to this tree.

    Raises:
        errors.RequestError: digest_mismatch, for a tree that no bundle unpacks to.
        OSError: The tree cannot be read.
    """
    digest = hashlib.sha256()
    total = 0
    for name in sorted(_names(root)):
        total += _add(digest, root, name)
    end = 2 * BLOCK_BYTES
    digest.update(bytes(end + -(total + end) % RECORD_BYTES))
    return f"sha256:{digest.hexdigest()}"


def environment_digest(root: Path) -> str:
    """Return "sha256:" and the hex digest of a virtual environment: of its names, links, modes and contents.

    Raises:
        errors.RequestError: digest_mismatch, for what is no file, folder or link.
        OSError: The tree cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = os.fsencode(path.relative_to(root))
        if path.is_symlink():
            kind, content = b"link", hashlib.sha256(os.fsencode(path.readlink()))
        elif path.is_file():
            kind = b"program" if path.stat().st_mode & stat.S_IXUSR else b"file"
            with path.open("rb", buffering=0) as file:
                content = hashlib.file_digest(file, "sha256")
        elif path.is_dir():
            kind, content = b"folder", hashlib.sha256()
        else:
            raise errors.RequestError("digest_mismatch", f"cannot trust {path}: it is no file, folder or link")
        digest.update(b"%s %s %s\0" % (kind, content.hexdigest().encode(), name))
    return f"sha256:{digest.hexdigest()}"


def _names(root: Path) -> list[str]:
    names = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    names.append(name)
                else:
                    raise errors.RequestError("digest_mismatch", f"cannot trust {name}: it is not a regular file")
    return names


def _add(digest: "hashlib._Hash", root: Path, name: str) -> int:
    with (root / name).open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        digest.update(_header(name, status.st_mode, status.st_size))
        size = 0
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    padding = -size % BLOCK_BYTES
    digest.update(bytes(padding))
    return BLOCK_BYTES + size + padding


def _header(name: str, mode: int, size: int) -> bytes:
    if size > SIZE_MAX_BYTES:
        raise errors.RequestError("digest_mismatch", f"cannot trust {name}: {size} bytes do not fit into a bundle")
    prefix, last = _split(name.encode("utf-8", "surrogateescape"))
    fields = [
        last.ljust(NAME_MAX_BYTES, b"\0"),
        b"%07o\0" % (0o755 if mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH) else 0o644),
        b"%07o\0" % 0,  # owner
        b"%07o\0" % 0,  # group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # the checksum counts as blanks while it is computed
        b"0",  # regular file
        bytes(100),  # link name
        b"ustar\00000",
        bytes(32 + 32 + 8 + 8),  # names of owner and group, device numbers
        prefix.ljust(PREFIX_MAX_BYTES, b"\0"),
    ]
    block = b"".join(fields).ljust(BLOCK_BYTES, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Split a long name at the first slash that leaves both parts short enough, as tarfile does."""
    if len(name) <= NAME_MAX_BYTES:
        return b"", name
    for index, byte in enumerate(name):
        if byte == ord("/") and index <= PREFIX_MAX_BYTES and len(name) - index - 1 <= NAME_MAX_BYTES:
            return name[:index], name[index + 1 :]
    raise errors.RequestError("digest_mismatch", f"cannot trust {name!r}: the name does not fit into a bundle")
