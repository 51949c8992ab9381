"""A report's signals and columns as the lines of a table: what mails and pages show of them, in the same words."""

from __future__ import annotations

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
