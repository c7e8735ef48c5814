"""Loads a version of a module beside others, and reads what it says of itself.

Rules kept here: what is executed are exactly the bytes whose hash was checked; each load has a private name, so two
versions live side by side and nothing is ever reloaded in place; no compiled file is written, for a release is
read-only. Left out: when it is loaded, and what is called (`module_cell`).
"""

import hashlib
import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from instar_handover import module_schema, module_versions

FILE_BYTES_MAX = 16 * 1024**2  # of source; more is a mistake
PREFIX = "instar_module"


class ModuleFaultError(Exception):
    """The module, or what is asked of it, is not fit.

    Args:
        code: Stable, in snake_case.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a module, as it lies on disk.

    Args:
        instance: Name of this generation, for ever.
        sha256: Of the file, in hexadecimal digits.
        digest: Of the release that the file belongs to; only shown.
    """

    instance: str
    file: Path
    sha256: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can serve.

    Args:
        schema: None for a module that keeps no state.
        known: Comparators of the versions whose state its `code_change` takes; empty for none but its own schema.
        is_one_way: It may be gone to though there is no way back.
    """

    release: Release
    module: ModuleType
    schema: module_schema.Schema | None
    known: str
    is_one_way: bool

    def knows(self, other: "Loaded") -> bool:
        """Whether it can take the state that the other exports."""
        if self.schema is None or other.schema is None or self.schema == other.schema:
            return True
        return bool(self.known) and module_versions.holds(self.known, other.release.version)

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function of the module.

        Raises:
            ModuleFaultError: It has none of that name.
        """
        found = getattr(self.module, name, None)
        if not callable(found):
            raise ModuleFaultError("module_invalid", f"cannot use {self.release.instance}: it has no function {name}")
        return found  # type: ignore[no-any-return]  # whatever it takes and gives


def load(component: str, release: Release, count: int) -> Loaded:
    """Read, check, execute, and run `self_test`; whatever the module raises is turned into a fault of the module.

    Args:
        component: Its name goes into the private name.
        release: What is loaded.
        count: How-manieth load of this process.

    Raises:
        ModuleFaultError: It cannot serve.
    """
    content = _checked(release)
    name = f"{PREFIX}_{re.sub(r'[^0-9a-z]', '_', component)}_{release.sha256[:8]}_{count}"
    spec = importlib.util.spec_from_loader(name, _Loader(release.file, content))
    assert spec is not None  # noqa: S101  # it is, where a loader is given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _Loader(release.file, content).exec_module(module)
        _test(module, release)
        return _described(module, release)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ModuleFaultError):
            raise
        message = f"cannot load {release.instance}: {type(error).__name__}: {error}"
        raise ModuleFaultError("module_broken", message) from error


def unload(loaded: Loaded) -> None:
    """Forget the private name; twice is success."""
    sys.modules.pop(loaded.module.__name__, None)


def _checked(release: Release) -> bytes:
    try:
        with release.file.open("rb") as source:
            content = source.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ModuleFaultError("file_unreadable", f"cannot read {release.file}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != release.sha256:
        message = f"cannot load {release.file}: its sha256 is {found}, not {release.sha256}"
        raise ModuleFaultError("file_differs", message)
    return content


def _test(module: ModuleType, release: Release) -> None:
    self_test = getattr(module, "self_test", None)
    if self_test is not None and self_test() is False:
        raise ModuleFaultError("self_test_failed", f"cannot use {release.instance}: its self_test says no")


def _described(module: ModuleType, release: Release) -> Loaded:
    declared = getattr(module, "STATE_SCHEMA", None)
    known = getattr(module, "STATE_FROM", "")
    try:
        schema = None if declared is None else module_schema.read(declared)
        if known:
            module_versions.holds(known, release.version)
    except (module_schema.SchemaError, module_versions.VersionError) as error:
        raise ModuleFaultError("module_invalid", f"cannot use {release.instance}: {error}") from error
    loaded = Loaded(release, module, schema, known, is_one_way=bool(getattr(module, "ONE_WAY", False)))
    needed = () if schema is None else ("export_state", "import_state", *(("code_change",) if known else ()))
    for name in needed:
        loaded.function(name)
    return loaded


class _Loader(importlib.abc.SourceLoader):
    """Executes bytes that have been read already; tracebacks show them."""

    def __init__(self, file: Path, content: bytes) -> None:
        self._file = file
        self._content = content

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002  # the interface's own
        return str(self._file)

    def get_data(self, path: "bytes | str") -> bytes:  # noqa: ARG002  # the interface's own
        return self._content
