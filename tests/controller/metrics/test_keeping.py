"""What of the readings outlives the controller, for how long, and how it is told again."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from controller.core import errors, model
from controller.metrics import chunks, keeping, limits
from controller.store import database
from tests.controller.metrics import nodes

MINUTE = timedelta(minutes=1)
RATE = model.Measure(model.MeasureKind.RATE, "requests_total")
LEVEL = model.Measure(model.MeasureKind.LEVEL, "load")
SERVES = {"requests_total": 100.0, "load": 4.0}


def stored(store: database.Store) -> list[tuple[str, str, str]]:
    which = "SELECT node_id, component, began_at FROM series_chunks ORDER BY 3, 1, 2"
    rows = store.read(lambda connection: connection.exec_driver_sql(which).all())
    return [(row[0], row[1], row[2][11:16]) for row in rows]


def store_of(fleet: nodes.Fleet) -> database.Store:
    archive = fleet.collector._archive
    assert isinstance(archive, database.Store)
    return archive


async def written(fleet: nodes.Fleet) -> None:
    """Let the keeper write, as it does each interval."""
    run = fleet.collector._run
    assert run is not None
    await run.keeper.write(run.nodes)
    await run.keeper.prune(fleet.clock.at - fleet.collector._kept.retention)


async def test_ten_minutes_are_written_once_they_are_over_and_the_rest_at_the_end(tmp_path: Path) -> None:
    async with nodes.collecting(tmp_path / "store") as fleet:
        store = store_of(fleet)
        fleet.live(59, {"c": SERVES})
        await written(fleet)
        assert stored(store) == []
        fleet.live(2, {"c": SERVES})
        await written(fleet)
        assert stored(store) == [("c", "web", "00:00")]
        await fleet.collector.stop_collection()
        assert stored(store) == [("c", "web", "00:00"), ("c", "web", "00:10")]


async def test_the_past_survives_a_restart_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with nodes.collecting(path) as fleet:
        fleet.live(400, {"c": SERVES, "u": {**SERVES, "errors_total": 1.0}})
        told, at = fleet.told, fleet.clock.at
    async with nodes.collecting(path, at=at + 2 * MINUTE) as again:
        again.told = told
        began_at = again.clock.at
        again.live(1, {"c": {**SERVES, "requests_total": 1_200.0}, "u": SERVES})
        again.live(30, {"c": {**SERVES, "requests_total": 300.0}, "u": SERVES})
        span = {"began_at": began_at - 3 * MINUTE, "past": timedelta(hours=1)}
        rate = again.sample(RATE, {"c": began_at + nodes.PERIOD}, ("u",), **span)
        level = again.sample(LEVEL, {"c": began_at}, ("u",), **span)
        errors_of = again.sample(model.Measure(model.MeasureKind.RATE, "errors_total"), {"c": began_at}, ("u",), **span)
    # A past of an hour in readings of a minute; 100 each ten seconds on both nodes.
    assert (rate.before / rate.before_exposure).tolist() == pytest.approx([10.0, 10.0])
    assert (rate.before_exposure > 3_000).all()
    assert rate.after.tolist() == [30 * 300.0, 30 * 100.0]
    assert level.before.tolist() == pytest.approx([4.0, 4.0])
    assert level.after.tolist() == pytest.approx([4.0, 4.0])
    assert errors_of.before[1] / errors_of.before_exposure[1] == pytest.approx(0.1)
    assert np.isnan(errors_of.before[0])


async def test_a_counter_that_began_anew_while_no_controller_was_up_has_not_lost_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with nodes.collecting(path) as fleet:
        fleet.live(100, {"c": SERVES})
        at = fleet.clock.at
    async with nodes.collecting(path, at=at + MINUTE) as again:
        again.told = {"c": {"requests_total": 50.0}}
        again.live(30, {"c": SERVES})
        since = at + MINUTE + nodes.PERIOD
        found = again.sample(RATE, {"c": since}, (), began_at=at, past=10 * MINUTE)
        whole = again.sample(RATE, {"c": at - MINUTE}, (), began_at=at, past=10 * MINUTE)
    assert found.after.tolist() == [29 * 100.0]
    assert whole.after[0] == pytest.approx(6 * 100 + 150 + 29 * 100, abs=600)  # from a reading of the minute before


async def test_what_is_older_than_the_retention_goes(tmp_path: Path) -> None:
    kept = limits.Limits(past=timedelta(minutes=30), retention=timedelta(hours=1))
    async with nodes.collecting(tmp_path / "store", kept) as fleet:
        for _ in range(14):
            fleet.live(60, {"c": SERVES})
            await written(fleet)
        begins = [row[2] for row in stored(store_of(fleet))]
    assert begins == ["01:20", "01:30", "01:40", "01:50", "02:00", "02:10"]


async def test_a_removed_node_leaves_nothing_behind(tmp_path: Path) -> None:
    async with nodes.collecting(tmp_path / "store") as fleet:
        fleet.live(61, {"c": SERVES, "u": SERVES})
        await written(fleet)
        await fleet.collector.forget(model.NodeId("c"))
        assert stored(store_of(fleet)) == [("u", "web", "00:00")]


async def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    async with nodes.collecting(tmp_path / "store") as fleet:
        store = store_of(fleet)
        fleet.live(61, {"c": SERVES})
        await store.write(
            lambda connection: connection.exec_driver_sql("ALTER TABLE series_chunks RENAME TO elsewhere")
        )
        with pytest.raises(Exception, match="series_chunks"):
            await written(fleet)
        fleet.live(60, {"c": SERVES})
        with pytest.raises(errors.UnavailableError) as caught:
            await fleet.collector.stop_collection()
        assert caught.value.code == "store_unavailable"
        await store.write(
            lambda connection: connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO series_chunks")
        )
        assert await fleet.collector.start_collection(nodes.PERIOD)
        fleet.live(61, {"c": SERVES})
        await written(fleet)
        assert [row[2] for row in stored(store)] == ["00:20"]


async def test_what_is_told_while_it_is_being_written_is_written_the_next_time() -> None:
    class SlowArchive:
        """Lets a node speak while its chunks are on their way."""

        def __init__(self, store: database.Store) -> None:
            self._store = store
            self.meanwhile: list[int] = []

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        async def write_chunks(self, rows: tuple[model.SeriesChunk, ...]) -> None:
            if self.meanwhile:
                fleet.live(self.meanwhile.pop(), {"c": SERVES})
            await self._store.write_chunks(rows)

    async with nodes.collecting() as fleet:
        store = store_of(fleet)
        run = fleet.collector._run
        assert run is not None
        slow = SlowArchive(store)
        run.keeper._archive = slow  # type: ignore[assignment]  # it passes everything else on
        fleet.live(61, {"c": SERVES})
        slow.meanwhile.append(60)
        await written(fleet)
        await written(fleet)
        assert [row[2] for row in stored(store)] == ["00:00", "00:10"]


async def test_what_was_told_is_told_again_in_the_order_of_time(tmp_path: Path) -> None:
    async with nodes.collecting(tmp_path / "store") as fleet:
        fleet.live(150, {"a": SERVES, "b": {"requests_total": 50.0}})
        await written(fleet)
        since, until = nodes.EPOCH + 5 * MINUTE, nodes.EPOCH + 15 * MINUTE
        found = [each async for each in fleet.collector.replay("web", since, until)]
    times = [each.at for each in found]
    assert times == sorted(times)
    assert all(since <= at <= until for at in times)
    assert {each.node_id for each in found} == {"a", "b"}
    of_a = [each for each in found if each.node_id == "a"]
    assert [each.at - since for each in of_a] == [number * MINUTE + nodes.PERIOD for number in range(10)]
    assert {each.series["load"] for each in of_a} == {4.0}
    assert [each.series["requests_total"] for each in of_a][:2] == [(5 * 6 + 1) * 100.0, (6 * 6 + 1) * 100.0]
    assert all(set(each.series) == {"requests_total"} for each in found if each.node_id == "b")


async def test_a_chunk_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with nodes.collecting(path) as fleet:
        fleet.live(130, {"c": SERVES})
        at = fleet.clock.at
        await fleet.collector.stop_collection()
        store = store_of(fleet)
        await store.write(
            lambda connection: connection.exec_driver_sql(
                "UPDATE series_chunks SET body = x'00' WHERE began_at LIKE '%00:00:00%'"
            )
        )
    async with nodes.collecting(path, at=at) as again:
        again.live(3, {"c": SERVES})
        found = again.sample(RATE, {"c": at}, (), began_at=at, past=timedelta(hours=1))
    assert found.before_exposure[0] <= 700


FLOATS = st.floats(allow_infinity=False, width=64)


@given(
    readings=st.integers(0, 12),
    series=st.integers(1, 5),
    data=st.data(),
)
def test_a_chunk_is_read_as_it_was_written(readings: int, series: int, data: st.DataObject) -> None:
    def drawn(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return data.draw(arrays.arrays(np.float64, shape, elements=FLOATS))

    kinds = {f's{number}{{le="ä"}}': bool(number % 2) for number in range(series)}
    written_one = chunks.Chunk(
        kinds, drawn(readings), drawn(readings, series), drawn(series), drawn(series), 2**62, 1.5
    )
    read = chunks.decode(chunks.encode(written_one))
    assert (read.kinds, read.life, read.latest) == (kinds, 2**62, 1.5)
    for name in ("times", "values", "seen", "total"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written_one, name))


@given(body=st.binary(max_size=100))
def test_what_is_no_chunk_is_an_error_and_nothing_else(body: bytes) -> None:
    with pytest.raises(chunks.ChunkError, match="cannot read"):
        chunks.decode(body)


def test_ticks_and_instants_are_two_words_for_one_thing() -> None:
    epoch = keeping.Epoch(datetime(2026, 1, 1).timestamp(), 19_200)  # noqa: DTZ001 only a number
    assert epoch.tick(epoch.base_seconds + 10) == 320
    assert epoch.seconds(np.array([320])).tolist() == [epoch.base_seconds + 10]
    assert epoch.tick(epoch.base_seconds - 1) == 0
    assert epoch.tick(epoch.base_seconds + 1e12) == 2**32 - 2
