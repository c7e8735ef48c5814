"""Chains to look at: some epochs of some rows each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import strategies

from controller.core.audit import chain

NOW = datetime(2026, 1, 1, 12, 30, 0, 250, tzinfo=UTC)
_TEXTS = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=12)
_INSTANTS = strategies.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=strategies.just(UTC))  # noqa: DTZ001  # zones are said beside
ENTRIES = strategies.builds(chain.Entry, _INSTANTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS)


def entry(number: int) -> chain.Entry:
    return chain.Entry(NOW + timedelta(seconds=number), "ann", "rollout.pause", f"r-{number}", "lunch")


def made(epochs: Iterable[Sequence[chain.Entry]], begin: chain.Head = chain.GENESIS) -> list[chain.Record]:
    """The chain of these entries, by epochs."""
    head, records = begin, list[chain.Record]()
    for entries in epochs:
        epoch = chain.begin(head, NOW)
        head = epoch.head
        records.append(epoch)
        for one in entries:
            row = chain.follow(head, one)
            head = row.head
            records.append(row)
    return records


def of(*lengths: int) -> list[chain.Record]:
    """A chain of epochs of so many rows each."""
    return made([[entry(number) for number in range(length)] for length in lengths])


CHAINS = strategies.lists(strategies.integers(0, 5), min_size=1, max_size=4).map(lambda lengths: of(*lengths))
