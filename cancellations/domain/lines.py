"""A report's signals and columns as the lines of a table: what mails and pages show of them, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cancellations.domain.retraining import ColumnDrift, MonitorReport, Signal, Verdict


def one_line(text: object) -> str:
    """Text on one line without control characters: fit for a header, a file's table, a sentence."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


@dataclass(frozen=True)
class SignalLine:
    """A signal as a table shows it; `between` is its interval, empty where it has none; `basis` tells where its
    threshold comes from, empty where it is the documented one."""

    name: str
    value: str
    between: str
    threshold: str
    basis: str
    weight: str
    verdict: str
    alarm: bool
    before: str
    after: str
    why: str


@dataclass(frozen=True)
class ColumnLine:
    """A column as a table shows it."""

    name: str
    method: str
    before: str
    after: str
    weight: str
    score: str
    threshold: str
    drifted: bool
    why: str


def signal_lines(report: MonitorReport) -> list[SignalLine]:
    return [_signal(signal) for signal in report.signals]


def column_lines(report: MonitorReport) -> list[ColumnLine]:
    """Drifted columns and those that could not be evaluated first, then the others; each by weight in the champion."""
    order = sorted(report.columns, key=lambda c: (not _notable(c), -c.weight, c.column))
    return [_column(column) for column in order]


@dataclass(frozen=True)
class Cell:
    """A figure against one reference."""

    text: str
    alarm: bool


@dataclass(frozen=True)
class ReferenceLine:
    """A signal, or a column, of one window against several references, in their order."""

    name: str
    cells: tuple[Cell, ...]
    heading: bool


def reference_lines(reports: Sequence[MonitorReport], columns: int) -> list[ReferenceLine]:
    """Signals that every report has, then the columns that matter most; the first report decides."""
    found = []
    for signal in reports[0].signals:
        same = [report.signal(signal.name) for report in reports]
        if all(same):
            found.append(ReferenceLine(one_line(signal.name), tuple(_told(s) for s in same if s), heading=True))
    heaviest = sorted((c for c in reports[0].columns if c.weight > 0), key=lambda c: (-c.weight, c.column))[:columns]
    by_name = [{c.column: c for c in report.columns} for report in reports]
    for column in heaviest:
        cells = tuple(_scored(names.get(column.column)) for names in by_name)
        found.append(ReferenceLine(one_line(column.column), cells, heading=False))
    return found


def _told(signal: Signal) -> Cell:
    if signal.value is None:
        return Cell(f"not evaluated: {one_line(signal.why)}", alarm=False)
    return Cell(f"{signal.value:.3f} {signal.verdict.value}", signal.verdict is Verdict.ALARM)


def _scored(column: ColumnDrift | None) -> Cell:
    if column is None or column.score is None:
        return Cell("–", alarm=False)
    return Cell(f"{column.score:.3g}", column.drifted)


def notable(report: MonitorReport) -> int:
    """How many of the column lines tell of something: a drift, or a column that could not be evaluated."""
    return sum(_notable(column) for column in report.columns)


def _notable(column: ColumnDrift) -> bool:
    return column.drifted or column.score is None


def _signal(signal: Signal) -> SignalLine:
    return SignalLine(
        one_line(signal.name),
        "-" if signal.value is None else f"{signal.value:.3f}",
        "" if signal.low is None or signal.high is None else f"{signal.low:.3f} to {signal.high:.3f}",
        f"{signal.threshold:g}",
        one_line(signal.basis),
        f"{signal.weight:g}" if signal.weight else "none, mailed" if signal.mailed else "none",
        signal.verdict.value,
        signal.verdict is Verdict.ALARM,
        one_line(signal.before),
        one_line(signal.after),
        one_line(signal.why),
    )


def _column(column: ColumnDrift) -> ColumnLine:
    return ColumnLine(
        one_line(column.column),
        one_line(column.method),
        one_line(column.before),
        one_line(column.after),
        f"{column.weight:.0%}" if column.weight >= 0.01 or column.weight == 0 else "< 1%",
        "-" if column.score is None else f"{column.score:.3g}",
        f"{column.threshold:g}",
        column.drifted,
        one_line(column.why),
    )
