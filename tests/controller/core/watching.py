"""The words of the scenarios of the monitor: one rule, and what one look after the other sees."""

from __future__ import annotations

from datetime import timedelta

from controller.core import model
from controller.core.monitoring import machine
from tests import datadriven
from tests.controller.core import scenario

MEASURE = model.Measure(model.MeasureKind.LEVEL, "queue")


class Watching:
    """A rule, and how it stands."""

    def __init__(self) -> None:
        self.rule: model.Rule
        self.watch = machine.begin(scenario.START)
        self.at = timedelta()

    def handle(self, case: datadriven.Case) -> str:
        handlers = {"rule": self._rule, "see": self._see, "restart": self._restart}
        return handlers[case.command](dict(case.arguments))

    def _rule(self, words: dict[str, str]) -> str:
        is_below = "below" in words
        self.rule = model.Rule(
            name="queue",
            component=model.ComponentName("web"),
            measure=MEASURE,
            fire_at=float(words["below" if is_below else "above"]),
            clear_at=float(words["clear"]),
            is_below=is_below,
            window=scenario.duration(words.get("window", "30s")),
            pending_for=scenario.duration(words.get("for", "0s")),
            keep_firing_for=scenario.duration(words.get("keep", "0s")),
        )
        return self._told()

    def _see(self, words: dict[str, str]) -> str:
        """See ``values``, one after the other, each ``every`` so often; ``at`` sets the clock first."""
        every = scenario.duration(words.get("every", "10s"))
        if "at" in words:
            self.at = scenario.duration(words["at"]) - every
        told = []
        for value in words["values"].split(","):
            self.at += every
            seen = None if value == "-" else float(value)
            self.watch = machine.step(self.rule, self.watch, seen, scenario.START + self.at)
            told.append(f"{self.at.total_seconds():g}s {value:>4}  {self._told()}")
        return "\n".join(told)

    def _restart(self, words: dict[str, str]) -> str:
        """Nobody looks for a while; what is stored stands."""
        self.at += scenario.duration(words["after"])
        return f"{self.at.total_seconds():g}s {self._told()}"

    def _told(self) -> str:
        watch = self.watch
        fired = f", fired at {scenario.since_start(watch.fired_at)}" if watch.fired_at else ""
        clear = f", clear since {scenario.since_start(watch.clear_since)}" if watch.clear_since else ""
        return f"{watch.state.value} since {scenario.since_start(watch.since)}{fired}{clear}"
