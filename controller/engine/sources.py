"""Where the figures of an analysis come from: what nodes report themselves, or a Prometheus server by its name.

Rules kept: a source that gives no answer in time leaves its metrics unknown, and says why; it never raises. Left out:
how figures are kept and asked for (`controller.metrics`), and what they show (`controller.core.analysis`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controller.core import errors, model
from controller.core.analysis import power, samples
from controller.metrics import collector as collectors
from controller.metrics import prometheus, queries

# For one answer: the next look is due long before.
ANSWER_DEADLINE = timedelta(seconds=30)
# Nodes whose past tells how a metric behaves; more tell no more.
HABIT_NODES_MAX = 200


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be told of one rollout.

    Args:
        canary: For each changed node the instant from which its evidence counts.
        control: The untouched nodes.
        began_at: When the first node began to change.
        at: Now.
    """

    subject: queries.Subject
    analysis: model.Analysis
    canary: Mapping[model.NodeId, datetime]
    control: Sequence[model.NodeId]
    began_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of it.

    Args:
        samples: By the name of the metric; what is not there is unknown.
        fault: Why nothing is known, in a sentence; empty where something is.
    """

    samples: Mapping[str, samples.Sample] = field(default_factory=dict)
    fault: str = ""


class Sources:
    """All sources that there are.

    Args:
        collector: What nodes report themselves.
        servers: Prometheus servers by name.
    """

    def __init__(self, collector: collectors.Collector, servers: Mapping[str, prometheus.Prometheus]) -> None:
        self._collector = collector
        self._servers = servers

    @property
    def names(self) -> frozenset[str]:
        """The sources that an analysis may name."""
        return frozenset(self._servers)

    async def ask(self, question: Question) -> Answer:
        """Ask the source of an analysis."""
        name = question.analysis.source
        if not name:
            return Answer(self._collected(question))
        server = self._servers.get(name)
        if server is None:
            return Answer(fault=f"source {name} is no longer configured")
        try:
            async with asyncio.timeout(ANSWER_DEADLINE.total_seconds()):
                return Answer(await _asked(server, question))
        except TimeoutError:
            return Answer(fault=f"source {name} gave no answer within {ANSWER_DEADLINE}")
        except errors.SourceError as error:
            return Answer(fault=str(error))

    def _collected(self, question: Question) -> Mapping[str, samples.Sample]:
        return self._collector.samples(
            question.subject.component,
            question.analysis.metrics,
            question.canary,
            question.control,
            past=question.analysis.past,
            began_at=question.began_at,
            at=question.at,
        )

    def habits(
        self,
        component: model.ComponentName,
        analysis: model.Analysis,
        nodes: Collection[model.NodeId],
        at: datetime,
    ) -> Mapping[str, power.Habit]:
        """Say how the metrics of an analysis behave now, as far as nodes report them themselves."""
        if analysis.source:
            return {}
        few = tuple(nodes)[:HABIT_NODES_MAX]
        found = self._collector.samples(component, analysis.metrics, {}, few, past=analysis.past, began_at=at, at=at)
        habits = {each.name: power.habit(found[each.name], each.measure, analysis.past) for each in analysis.metrics}
        return {name: habit for name, habit in habits.items() if habit is not None}

    async def close(self) -> None:
        """Close every connection."""
        for server in self._servers.values():
            await server.aclose()


async def _asked(server: prometheus.Prometheus, question: Question) -> Mapping[str, samples.Sample]:
    return await server.samples(
        question.subject,
        question.analysis.metrics,
        question.canary,
        question.control,
        past=question.analysis.past,
        began_at=question.began_at,
        at=question.at,
    )
