"""Releases as the verifier lays them out."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from agent.keeper import digest


def lay_out(state_dir: Path, files: Mapping[str, str], mode: int = 0o644) -> tuple[Path, str]:
    """Lay a release out, its files with this mode; returns its directory and its digest."""
    tree = Path(tempfile.mkdtemp(dir=state_dir))
    tree.chmod(0o755)
    for name, text in files.items():
        (tree / name).write_text(text)
        (tree / name).chmod(mode)
    found = digest.tree_digest(tree)
    release = state_dir / "releases" / found.removeprefix("sha256:")
    if release.exists():
        shutil.rmtree(tree)
    else:
        tree.rename(release)
    return release, found
