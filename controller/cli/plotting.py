"""Draws how canary and control went over time, with the moments that count: the change, and the verdict.

Rules kept here: what is not known is a gap, never a zero; a figure is drawn over the span of time that it was counted
in; lines are labelled where they end, in colours that colour-blind people tell apart; the title says the verdict. Drawn
into a file, without a screen. Left out: what the figures are (`judging_tables` says them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import axes, dates, figure, ticker

from controller.cli import failures, judging_tables, spans
from instar.v1 import analysis_pb2, rollout_service_pb2

# Of the palette by Okabe and Ito, which colour-blind people tell apart.
_CANARY, _CONTROL, _INK, _FAINT = "#d55e00", "#0072b2", "#222222", "#6b6b6b"
_WIDTH_INCHES, _HEIGHT_INCHES, _HEAD_INCHES = 10.0, 2.9, 1.95
_DOTS_PER_INCH = 150
_TIMES = ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]  # by what the ticks lie apart: years, ... seconds
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # times of messages come without a zone, in UTC
# Units of figures by a word in the name of their series, as Prometheus' rules for names have it.
_UNITS = {"seconds": " s", "bytes": " B"}
_EDGE = 0.85  # of the width: what is marked behind it is named to its left
_LABEL_GAP = 0.09  # of the height of a panel: closer labels would cover each other
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
}


def draw(told: rollout_service_pb2.GetAnalysisResponse, file: Path) -> None:
    """Draw a plot into a file.

    Raises:
        CommandError: There is nothing to draw, or the file cannot be written.
    """
    courses = [one for one in told.courses if any(_known(one.points, "canary")) or any(_known(one.points, "control"))]
    if not courses:
        rule = "used where the nodes' own figures of that time are still kept"
        raise failures.usage("--plot", str(file), rule)
    with mpl.rc_context(_STYLE):
        drawn = figure_of(told, courses)
        try:
            drawn.savefig(file, dpi=_DOTS_PER_INCH, format="png")
        except OSError as fault:
            raise failures.usage("--plot", str(file), f"a file that can be written ({fault.strerror})") from fault


def figure_of(told: rollout_service_pb2.GetAnalysisResponse, courses: Sequence[analysis_pb2.Course]) -> figure.Figure:
    """Make a plot of these courses, one panel for each."""
    height = _HEAD_INCHES + _HEIGHT_INCHES * len(courses)
    drawn = figure.Figure(figsize=(_WIDTH_INCHES, height), facecolor="white")
    panels = list(drawn.subplots(len(courses), 1, sharex=True, squeeze=False)[:, 0])
    drawn.subplots_adjust(left=0.08, right=0.83, top=1 - _HEAD_INCHES / height, bottom=0.5 / height, hspace=0.6)
    judgement = judging_tables.found(told.judging)
    found = {one.metric: one for one in judgement.evidence} if judgement is not None else {}
    for panel, course in zip(panels, courses, strict=True):
        _draw_course(panel, course)
        _head_panel(panel, course, found.get(course.metric.name))
    _draw_moments(panels, told.judging)
    locator = dates.AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]  # it has no types
    panels[-1].xaxis.set_major_locator(locator)
    writes = dates.ConciseDateFormatter(locator, formats=_TIMES, zero_formats=_TIMES, show_offset=False)  # type: ignore[no-untyped-call]  # nor has it
    panels[-1].xaxis.set_major_formatter(writes)
    drawn.text(0.08, 1 - 0.38 / height, _title(told), fontsize=15, fontweight="bold", va="center")
    drawn.text(0.08, 1 - 0.58 / height, _subtitle(told), fontsize=10, color=_FAINT, va="top", linespacing=1.4)
    return drawn


# Words.


def _title(told: rollout_service_pb2.GetAnalysisResponse) -> str:
    judgement = judging_tables.found(told.judging)
    what = f"{told.component} {told.to_version}"
    if judgement is None:
        return f"{what}: nobody has looked yet"
    says = {
        analysis_pb2.FINDING_WORSE: "is worse",
        analysis_pb2.FINDING_NO_WORSE: "is no worse",
        analysis_pb2.FINDING_EARLY: "too early to say",
        analysis_pb2.FINDING_INCONCLUSIVE: "neither worse nor no worse in time",
        analysis_pb2.FINDING_UNKNOWN: "nothing is known",
    }[judgement.finding]
    by = told.judging.decided_by
    verdict = f"{what} {says}" if says.startswith("is ") else f"{what}: {says}"
    return f"{verdict}; promoted by {by}" if by else verdict


def _subtitle(told: rollout_service_pb2.GetAnalysisResponse) -> str:
    canary = "1 canary node" if len(told.canary_nodes) == 1 else f"{len(told.canary_nodes)} canary nodes"
    judgement = judging_tables.found(told.judging)
    after = "" if judgement is None else f", judged over {spans.shown(judgement.elapsed.ToTimedelta())}"
    line = f"{canary} against {told.control_nodes} untouched{after}"
    day = told.judging.begin_time.ToDatetime()
    return f"{line}; the band holds eight of ten of these\n{told.name}, {day:%d %b %Y}, times in UTC"


def _head_panel(panel: axes.Axes, course: analysis_pb2.Course, found: analysis_pb2.Evidence | None) -> None:
    panel.set_title(course.metric.name, loc="left", fontsize=11, fontweight="bold", pad=40)
    if found is None:
        return
    colour = _CANARY if found.finding == analysis_pb2.FINDING_WORSE else _INK
    panel.annotate(
        f"{_values_found(course, found)}{_lift_found(found)}",
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 24),
        textcoords="offset points",
        color=colour,
    )


def _values_found(course: analysis_pb2.Course, found: analysis_pb2.Evidence) -> str:
    """Say what was found, and of which figures: ``worse: 4.1 % against 1 %``."""
    says = judging_tables.finding(found.finding)
    if not (found.HasField("canary_value") and found.HasField("control_value")):
        return says
    write = _writes(course)
    return f"{says}: {write(found.canary_value)} against {write(found.control_value)}"


def _lift_found(found: analysis_pb2.Evidence) -> str:
    """Say how much more the canary has changed, each node compared with its own past."""
    return f"; {judging_tables.lift(found)} by each node's own past" if found.HasField("lift") else ""


# Lines.


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a panel: its values, with gaps, and what stands at its end."""

    values: list[float]
    colour: str
    label: str

    @property
    def end(self) -> float:
        """The last value that is known."""
        return next((each for each in reversed(self.values) if not math.isnan(each)), math.nan)


def _draw_course(panel: axes.Axes, course: analysis_pb2.Course) -> None:
    times = [_days(one.time.ToDatetime()) for one in course.points]
    low, high = (list(_values(course.points, name)) for name in ("control_low", "control_high"))
    times = [2 * times[0] - times[1], *times] if len(times) > 1 else [*times, *times]
    panel.fill_between(times, _stepped(low), _stepped(high), step="pre", color=_CONTROL, alpha=0.13, linewidth=0)
    lines = [
        _Line(list(_values(course.points, "control")), _CONTROL, "untouched"),
        _Line(list(_values(course.points, "canary")), _CANARY, "canary"),
    ]
    for line in lines:
        panel.plot(times, _stepped(line.values), color=line.colour, linewidth=2, drawstyle="steps-pre", clip_on=False)
    _scale(panel, course, lines, high)
    _label_ends(panel, lines)


def _stepped(values: Sequence[float]) -> list[float]:
    """Values of spans as a stepped line takes them, which begins with the first span and not behind it."""
    return [*values[:1], *values]


def _scale(panel: axes.Axes, course: analysis_pb2.Course, lines: Sequence[_Line], band: Sequence[float]) -> None:
    known = [each for line in (*(line.values for line in lines), band) for each in line if not math.isnan(each)]
    top = max(known, default=1.0)
    panel.set_ylim(min(0.0, *known) if known else 0.0, top * 1.12 or 1.0)
    panel.yaxis.set_major_locator(ticker.MaxNLocator(4))
    write = _writes(course)
    panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: write(value)))
    panel.grid(axis="y", color="#ececec", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=3)


def _label_ends(panel: axes.Axes, lines: Sequence[_Line]) -> None:
    """Name each line at its end; labels that would cover each other are moved apart."""
    bottom, top = panel.get_ylim()
    gap = _LABEL_GAP * (top - bottom)
    shown = sorted((line for line in lines if not math.isnan(line.end)), key=lambda line: line.end)
    places: list[float] = []
    for line in shown:
        places.append(max(line.end, places[-1] + gap) if places else line.end)
    for line, place in zip(shown, places, strict=True):
        panel.annotate(
            line.label,
            (1.0, place),
            xycoords=panel.get_yaxis_transform(),
            xytext=(7, 0),
            textcoords="offset points",
            color=line.colour,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def _writes(course: analysis_pb2.Course) -> Callable[[float], str]:
    """Say how the figures of a metric are written; shares in percent, all others with their unit where it is known."""
    measure = course.metric.measure
    if measure.kind == analysis_pb2.MEASURE_KIND_RATIO:
        return lambda value: f"{100 * value:.3g} %"
    if measure.kind == analysis_pb2.MEASURE_KIND_RATE:
        return lambda value: f"{value:.3g}/s"
    words = measure.series.partition("{")[0].split("_")
    unit = next((unit for word, unit in _UNITS.items() if word in words), "")
    return lambda value: f"{value:.3g}{unit}"


def _draw_moments(panels: Sequence[axes.Axes], record: analysis_pb2.Judging) -> None:
    """Mark when the canary changed and when it was decided, in every panel; named in the first."""
    moments = [(record.begin_time.ToDatetime(), "canary changed")]
    if record.HasField("decide_time"):
        word = f"promoted by {record.decided_by}" if record.decided_by else _verdict(record)
        moments.append((record.decide_time.ToDatetime(), word))
    first, last = _days(moments[0][0]), _days(moments[-1][0])
    left, right = panels[0].dataLim.intervalx
    panels[0].set_xlim(left, max(right, last))
    for panel in panels:
        panel.axvspan(first, last if len(moments) > 1 else right, color=_INK, alpha=0.035, linewidth=0)
        for at, _ in moments:
            panel.axvline(_days(at), color=_INK, linewidth=1, linestyle=(0, (2, 3)))
    is_at_edge = last > left + _EDGE * (panels[0].get_xlim()[1] - left)
    for (at, word), side in zip(moments, ("right", "right" if is_at_edge else "left"), strict=False):
        panels[0].annotate(
            word,
            (_days(at), 1.0),
            xycoords=panels[0].get_xaxis_transform(),
            xytext=(-3 if side == "right" else 3, 4),
            textcoords="offset points",
            ha=side,
            va="bottom",
            fontsize=9,
            annotation_clip=False,
        )


def _verdict(record: analysis_pb2.Judging) -> str:
    is_worse = record.decided.finding == analysis_pb2.FINDING_WORSE
    return "taken back" if is_worse else judging_tables.finding(record.decided.finding)


def _days(at: datetime) -> float:
    """An instant as an axis of time counts it."""
    return (at - _EPOCH) / timedelta(days=1)


def _known(points: Sequence[analysis_pb2.Point], name: str) -> Iterator[bool]:
    return (not math.isnan(value) for value in _values(points, name))


def _values(points: Sequence[analysis_pb2.Point], name: str) -> Iterator[float]:
    for one in points:
        yield getattr(one, name) if one.HasField(name) else math.nan  # type: ignore[arg-type]  # the stubs want literals
