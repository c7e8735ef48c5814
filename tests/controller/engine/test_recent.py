from __future__ import annotations

from dataclasses import replace

import pytest
from rpds import HashTrieMap

from controller.core import model
from controller.engine import recent
from controller.store import rows
from tests.controller.engine import fleet

S = model.RolloutState
CHANGES = 10


def written(name: str, state: S = S.SUCCEEDED, revision: int = 1) -> rows.RolloutWrite:
    change = model.Change(
        node_id=model.NodeId("n"),
        component=fleet.WEB,
        kind=model.ChangeKind.UPGRADE,
        method=model.Method.HOT_SWAP,
        from_version="1.0.0",
        from_digest=fleet.DIGESTS["1.0.0"],
        to_version="1.1.0",
        to_digest=fleet.DIGESTS["1.1.0"],
    )
    all_of_them = [model.Progress(replace(change, node_id=model.NodeId(f"n{number}")), 1) for number in range(CHANGES)]
    rollout = model.Rollout(
        id=model.RolloutId(name),
        request=fleet.request(),
        plan=model.Plan("", (), ()),
        state=state,
        actor="ann",
        created_at=fleet.EPOCH,
        changes=HashTrieMap((each.key, each) for each in all_of_them),
        revision=revision,
    )
    return rows.RolloutWrite(rollout, None, rows.Lease(rollout.id, 1, "c"), ())


def test_what_has_ended_is_kept_as_it_was_last_written_until_it_goes_on() -> None:
    kept = recent.Recent()
    kept.take([written("r1", S.RUNNING), written("r2")])
    assert kept.find("r1") is None
    kept.take([written("r2", revision=7)])
    found = kept.find("r2")
    assert found is not None
    assert found.rollout.revision == 7
    kept.take([written("r2", S.REVERTING)])
    assert kept.find("r2") is None


def test_the_oldest_is_forgotten_where_there_are_too_many_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "CHANGES_MAX", 2 * CHANGES)
    kept = recent.Recent()
    kept.take([written("r1"), written("r2"), written("r1", revision=2), written("r3")])
    assert [kept.find(name) is not None for name in ("r1", "r2", "r3")] == [True, False, True]


def test_nothing_is_kept_of_what_may_not_be_in_the_store() -> None:
    kept = recent.Recent()
    kept.take([written("r1")])
    kept.clear()
    assert kept.find("r1") is None
