from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from google.protobuf import json_format

from controller.cli.demo import bundles
from instar.v1 import manifest_pb2


@pytest.mark.parametrize("source", [bundles.FIRST, bundles.NEXT, bundles.BAD])
def test_a_source_tree_holds_the_service_and_a_manifest_without_unknown_keys(
    source: bundles.Source, tmp_path: Path
) -> None:
    source.write(tmp_path / "web")

    text = (tmp_path / "web" / "instar.toml").read_text(encoding="utf-8")
    manifest = json_format.ParseDict(tomllib.loads(text), manifest_pb2.Manifest())
    assert (manifest.name, manifest.version) == ("web", source.version)
    assert (tmp_path / "web" / manifest.command[1]).is_file()
    assert bool(manifest.environment) is (source is bundles.BAD)


def test_a_release_that_fails_requests_says_how_many() -> None:
    told = tomllib.loads(bundles.manifest(bundles.Source("1.0.0", fails_every=20, fails_percent=0.5)))
    assert told["environment"] == {"WEB_FAILS_EVERY": "20", "WEB_FAILS_PERCENT": "0.5"}
