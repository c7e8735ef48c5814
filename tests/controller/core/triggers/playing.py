"""The words of the scenarios of triggers: one trigger, and what happens to it; `_` stands for a blank in a text.

``at`` is a time since the start, 2026-01-01T00:00Z, or an instant. What is stored is kept as the store keeps it, so
that ``restart`` brings back no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from rpds import HashTrieMap

from controller.core import copying, errors, model
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, explaining, guards, machine
from controller.store import codec, forms
from tests import datadriven
from tests.controller.core import scenario

TICKS_MAX = 100  # of one run: a deadline that comes again and again shall not hang the tests
Words = dict[str, str]
WEB = model.ComponentName("web")
MEASURE = model.Measure(model.MeasureKind.RATIO, "errors_total", "requests_total")
_BOOLS = {"yes": True, "no": False, "unknown": None}
_MADE = frozenset({"trigger", "edit", "enable", "disable", "remove"})


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text) if "T" in text else scenario.START + scenario.duration(text)


def span(words: Words, name: str, default: str = "0s") -> timedelta:
    return scenario.duration(words.get(name, default))


def text(words: Words, name: str, default: str = "") -> str:
    return words.get(name, default).replace("_", " ")


class Store:
    """What is stored of a trigger: its status, and its signals as far as a step said that they are to be."""

    def __init__(self, status: model.TriggerStatus) -> None:
        self.text = codec.encode(status, model.TriggerStatus, without=forms.SIGNALS)
        self.signals: dict[model.NodeId | None, str] = {}

    def keep(self, decision: drafts.Decision) -> None:
        self.text = codec.encode(decision.status, model.TriggerStatus, without=forms.SIGNALS)
        for node_id, signal in decision.signals.items():
            if signal is None:
                self.signals.pop(node_id, None)
            else:
                self.signals[node_id] = codec.encode(signal, model.Signal)

    def read(self) -> model.TriggerStatus:
        pairs = ((node_id, codec.decode(body, model.Signal)) for node_id, body in self.signals.items())
        status: model.TriggerStatus = codec.decode(self.text, model.TriggerStatus, signals=HashTrieMap(pairs))
        return status


class Playing:
    """The commands of ``testdata/trigger``."""

    def __init__(self) -> None:
        self.trigger = model.Trigger(model.TriggerId("t"), "tide", model.ByHand(), model.Notify(), changed_by="ann")
        self.status = machine.begin(self.trigger, "", scenario.START)
        self.around = guards.Around()
        self.store = Store(self.status)

    def handle(self, case: datadriven.Case) -> str:
        words = dict(case.arguments)
        if case.command in _TOLD:
            return _TOLD[case.command](self, words)
        try:
            made = self._define(case.command, words) if case.command in _MADE else self._step(case.command, words)
        except errors.InstarError as error:
            return f"refused, {error.code}: {error}"
        return "\n".join(made) or "nothing changes"

    def _define(self, command: str, words: Words) -> list[str]:
        at = instant(words.get("at", "0s"))
        before = self.trigger
        if command == "remove":
            return self._take(machine.remove(before, self.status, at))
        if command in ("enable", "disable"):
            self.trigger = copying.replace(before, is_enabled=command == "enable")
        else:
            self.trigger = defined(before, words, at)
        if command == "trigger":
            self.status = machine.begin(self.trigger, words.get("seen", ""), at)
            self.store = Store(self.status)
            return [self._next_run()]
        try:
            return self._take(machine.edit(before, self.trigger, self.status, words.get("seen", ""), at))
        except errors.InstarError:
            self.trigger = before
            raise

    def _step(self, command: str, words: Words) -> list[str]:
        made = (self._event(command, words, node) for node in words.get("node", "-").split(","))
        return [line for event in made for line in self._feed(event)]

    def _feed(self, event: events.Event) -> list[str]:
        return self._take(machine.step(self.trigger, self.status, event, self.around))

    def _take(self, decision: drafts.Decision) -> list[str]:
        self.status = decision.status
        self.store.keep(decision)
        told = [described(each) for each in decision.firings]
        return [*told, *(f"begin what firing {each.number} does" for each in decision.acts)]

    def _event(self, command: str, words: Words, node: str) -> events.Event:
        at = instant(words["at"])
        firing_id = model.FiringId(f"t.{words.get('firing', '1')}")
        actor, reason = words.get("by", "bob"), text(words, "reason")
        met, over = _BOOLS[words.get("met", "yes")], _BOOLS[words.get("over", "no")]
        node_id = None if node == "fleet" else model.NodeId(node)
        event = model.ReceivedEvent("ci", words.get("id", "e1"), "build.done", words.get("subject", ""))
        made: dict[str, Callable[[], events.Event]] = {
            "seen": lambda: events.Seen(at, model.NodeId(node), met, over),
            "looked": lambda: events.Looked(at, node_id, met),
            "gone": lambda: events.Gone(at, model.NodeId(node)),
            "event": lambda: events.Arrived(at, event),
            "moved": lambda: events.Moved(at, words["version"]),
            "fire": lambda: events.FiredByHand(at, actor, reason),
            "approve": lambda: events.Decided(at, firing_id, actor, reason, is_approved=True),
            "deny": lambda: events.Decided(at, firing_id, actor, reason, is_approved=False),
            "acted": lambda: events.Acted(at, firing_id, rollout(words), text(words, "says", "done")),
            "failed": lambda: events.ActFailed(at, firing_id, "no_plan", "cannot plan", "for-good" not in words),
            "ended": lambda: events.RolloutEnded(at, firing_id, model.RolloutState[words["state"]], "it is over"),
            "fault": lambda: events.EvaluationFailed(at, "cost_exceeded", "it costs too much"),
            "tick": lambda: events.Tick(at),
        }
        return made[command]()

    def _run(self, words: Words) -> str:
        """Let time pass: a tick at each deadline, each told with its time."""
        return "\n".join(self._running(instant(words["until"]))) or "nothing happens"

    def _running(self, until: datetime) -> Iterator[str]:
        for _ in range(TICKS_MAX):
            due_at = machine.next_deadline(self.trigger, self.status, self.around)
            if due_at is None or due_at > until:
                return
            told = self._feed(events.Tick(due_at))
            yield f"{shown(due_at)}: {'; '.join(told) or 'nothing changes'}"

    def _freeze(self, words: Words) -> str:
        self.around = guards.Around(
            "freeze f1 holds it: holidays", instant(words["until"]) if "until" in words else None
        )
        return "frozen"

    def _lift(self, _: Words) -> str:
        self.around = guards.Around()
        return self._deadline({})

    def _deadline(self, _: Words) -> str:
        due_at = machine.next_deadline(self.trigger, self.status, self.around)
        return "no deadline" if due_at is None else f"deadline at {shown(due_at)}"

    def _next_run(self) -> str:
        return f"next run at {shown(self.status.next_run_at)}" if self.status.next_run_at else "created"

    def _outstanding(self, _: Words) -> str:
        return ", ".join(each.id for each in machine.outstanding(self.status)) or "nothing"

    def _restart(self, _: Words) -> str:
        """The controller comes back with what was stored."""
        self.status = self.store.read()
        return f"{len(self.status.signals)} signals, {len(self.status.open)} open firings"

    def _signals(self, _: Words) -> str:
        known = self.status.signals
        return (
            "\n".join(f"{each or 'the fleet'}: {signalled(known[each])}" for each in sorted(known, key=str)) or "none"
        )

    def _evaluates(self, words: Words) -> str:
        return "yes" if machine.can_evaluate(self.trigger, self.status, instant(words["at"])) else "no"

    def _explain(self, words: Words) -> str:
        found = explaining.explain(self.trigger, self.status, self.around, instant(words["at"]))
        return "\n".join(explaining.lines(found))


_TOLD: dict[str, Callable[[Playing, Words], str]] = {
    "run": Playing._run,
    "freeze": Playing._freeze,
    "lift": Playing._lift,
    "deadline": Playing._deadline,
    "outstanding": Playing._outstanding,
    "restart": Playing._restart,
    "signals": Playing._signals,
    "evaluates": Playing._evaluates,
    "explain": Playing._explain,
}


def shown(at: datetime) -> str:
    return scenario.since_start(at) if abs(at - scenario.START) < timedelta(days=2) else at.isoformat()


def described(firing: model.Firing) -> str:
    retry = f", again at {shown(firing.next_try_at)}" if firing.next_try_at else ""
    rollout_id = f" ({firing.rollout_id})" if firing.rollout_id else ""
    return (
        f"firing {firing.number} {firing.state.value}{rollout_id}, {firing.reason.code}: {firing.reason.message}{retry}"
    )


def signalled(signal: model.Signal) -> str:
    raised = f", raised at {shown(signal.raised_at)}" if signal.raised_at else ""
    clear = f", over since {shown(signal.clear_since)}" if signal.clear_since else ""
    return f"holds since {shown(signal.since)}{raised}{clear}"


def rollout(words: Words) -> model.RolloutId | None:
    return model.RolloutId(words["rollout"]) if "rollout" in words else None


def defined(before: model.Trigger, words: Words, at: datetime) -> model.Trigger:
    """Define a trigger by words; what an edit does not name stays."""
    return copying.replace(
        before,
        when=_WHEN[words["when"]](words) if "when" in words else before.when,
        action=_DOES[words["does"]](words) if "does" in words else before.action,
        guards=guarded(before.guards, words),
        is_enabled="disabled" not in words,
        changed_at=at,
    )


def guarded(before: model.Guards, words: Words) -> model.Guards:
    """Change guards by words."""
    changes: dict[str, object] = {}
    for word, name in {"cooldown": "cooldown", "held": "held_max"}.items():
        changes |= {name: scenario.duration(words[word])} if word in words else {}
    if "cap" in words:
        changes["firings_per_hour_max"] = int(words["cap"])
    if "others" in words:
        changes["concurrency"] = model.ConflictPolicy[words["others"]]
    if "approval" in words:
        changes["approval"] = model.ApprovalGuard(scenario.duration(words["approval"]), by_another="own" not in words)
    if "window" in words:
        opens, _, duration = words["window"].partition("+")
        changes["windows"] = (model.Window(scenario.duration(opens), scenario.duration(duration)),) if opens else ()
    return copying.replace(before, **changes)


_WHEN: dict[str, Callable[[Words], model.When]] = {
    "threshold": lambda words: model.Threshold(
        "metrics.cpu > 0.9",
        pending_for=span(words, "for"),
        keep_firing_for=span(words, "keep"),
        nodes_min=int(words.get("nodes", "1")),
    ),
    "degradation": lambda words: model.Degradation(WEB, MEASURE, 50, 10, is_below="below" in words),
    "schedule": lambda words: model.Schedule(
        text(words, "cron"), words.get("zone", "UTC"), model.MissedPolicy[words.get("missed", "SKIP")]
    ),
    "event": lambda words: model.EventMatch("build.done", debounce=span(words, "debounce")),
    "version": lambda words: model.VersionAvailable(WEB, words.get("channel", ""), words.get("versions", "")),
    "hand": lambda _: model.ByHand(),
}
_DOES: dict[str, Callable[[Words], model.TriggerAction]] = {
    "notify": lambda words: model.Notify(text(words, "message")),
    "upgrade": lambda words: model.Upgrade(scenario.request({"target": words.get("target", "1.1.0")})),
    "rollback": lambda _: model.Rollback(WEB),
}
