"""How much work one transaction takes: little as a rule, more in a storm, never so much that nobody else is heard."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller import clock
from controller.core import errors, model
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.store import database, executor, postgres, reading, rows
from tests import breaking, postgresql

FAILS = 70  # the piece of work that raises, in the second slice of a large transaction


class Watched:
    """A desk on a real store, and how many pieces of work each of its transactions held."""

    def __init__(self, where: database.Where) -> None:
        self.store = database.Store(where, executor.WriterThread())
        self.sizes: list[int] = []
        hooks = desks.Hooks(lambda _: None, lambda draft: self.sizes.append(len(draft.audit)), lambda: None)
        self.desk = desks.Desk(self.store, clock.SystemClock(), "owner", hooks, ())

    async def ask(self, count: int) -> list[int | BaseException]:
        return await asyncio.gather(
            *(self.desk.submit(functools.partial(_work, number=number)) for number in range(count)),
            return_exceptions=True,
        )

    def written(self) -> list[str]:
        return [each.reason for each in self.store.read(lambda connection: reading.audit(connection, "storm"))]


def _work(draft: drafts.Draft, number: int) -> int:
    draft.put_audit("ann", "work", "storm", str(number))
    if number == FAILS:
        raise ValueError(number)
    return number


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    found = Watched(tmp_path / "store")
    async with asyncio.TaskGroup() as group:
        group.create_task(found.desk.run())
        yield found
        await found.desk.close()
    found.store.close()


async def test_little_work_is_answered_soon_and_much_work_shares_its_transactions(watched: Watched) -> None:
    few = desks.WORK_MAX - 1
    await watched.ask(few)
    assert watched.sizes == [few]
    watched.sizes.clear()
    await watched.ask(8 * desks.STORM_WORK_MAX)
    assert max(watched.sizes) == desks.STORM_WORK_MAX
    assert watched.sizes[-1] <= desks.WORK_MAX


async def test_each_piece_of_a_large_transaction_is_answered_for_itself_and_written_in_its_turn(
    watched: Watched,
) -> None:
    count = 4 * desks.STORM_WORK_MAX
    answers = await watched.ask(count)
    assert isinstance(answers[FAILS], ValueError)
    kept = [number for number in range(count) if number != FAILS]
    assert [answers[number] for number in kept] == kept
    assert sorted(map(int, watched.written())) == kept


async def test_others_are_heard_while_a_large_transaction_is_drafted(watched: Watched) -> None:
    heard: list[int] = []

    def work(draft: drafts.Draft, number: int) -> None:
        draft.put_audit("ann", "work", "storm", str(number))
        if number == 0:
            asyncio.get_running_loop().call_soon(heard.append, len(watched.sizes))
        if number == desks.STORM_WORK_MAX - 1:
            assert heard == [0]  # before the first transaction was whole

    count = 4 * desks.STORM_WORK_MAX
    await asyncio.gather(*(watched.desk.submit(functools.partial(work, number=number)) for number in range(count)))
    assert watched.sizes[0] == desks.STORM_WORK_MAX


async def test_after_a_commit_of_which_nothing_is_known_nothing_is_drafted_before_the_store_has_been_read_again(
    cluster: postgresql.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for a stand-by that does not exist: the commit is under way for as long as we like."""
    monkeypatch.setattr(postgres, "RESOLVE_ATTEMPTS_MAX", 1)
    name, drafted = cluster.make_name(postgresql.TEMPLATE), list[str]()

    def go_on(draft: drafts.Draft) -> None:
        drafted.extend(draft.world.sessions)

    with contextlib.closing(breaking.Wire(cluster.port)) as wire:
        watched = Watched(cluster.at(name, port=wire.port))
        async with asyncio.TaskGroup() as group:
            group.create_task(watched.desk.run())
            cluster.set("synchronous_standby_names", "nobody")
            try:
                wire.break_at_commit(breaking.SENT)
                for work in (_open_session, go_on):
                    with pytest.raises(errors.UnavailableError) as caught:
                        await watched.desk.submit(work)
                    assert caught.value.code == "outcome_unknown"
            finally:
                cluster.set("synchronous_standby_names", "")
            async with asyncio.timeout(30):
                while cluster.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await watched.desk.submit(go_on)
            await watched.desk.close()
        watched.store.close()
    assert drafted == ["n1"]


def _open_session(draft: drafts.Draft) -> None:
    token = "of the keeper"  # noqa: S105  # it is none
    draft.put_session(rows.Session(model.NodeId("n1"), model.SessionId("s"), 1, "boot", token, draft.at))
