"""Reports, decisions, what was learned or found, and a trial's evidence as JSON and back, exactly.

JSON knows neither dates nor enums nor infinities: they travel as text, and the field's type brings
them back. `schema` in each document numbers its form, so that a later one can read an earlier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from enum import Enum
from typing import Any

import numpy as np

from cancellations.domain.calibration import Calibration, Learned
from cancellations.domain.checks import Check, ColumnPast, Finding, Past, Record
from cancellations.domain.comparison import SequencePolicy, Step
from cancellations.domain.guards import Guard, GuardFinding, Outcome
from cancellations.domain.retraining import Action, ColumnDrift, Decision, MonitorReport, Signal, Verdict, Window
from cancellations.errors import BadInput

SCHEMA = 1


def plain(value: Any) -> Any:
    """`value` in JSON's own types; what has none (dates, infinities, NaN …) as text."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value)


def from_report(report: MonitorReport) -> dict[str, Any]:
    return {"schema": SCHEMA, **plain(asdict(report))}


def to_report(data: Mapping[str, Any]) -> MonitorReport:
    _require_known(data, "report")
    return MonitorReport(
        champion=data["champion"],
        window=Window(date.fromisoformat(data["window"]["start"]), date.fromisoformat(data["window"]["end"])),
        rows=data["rows"],
        reference_rows=data["reference_rows"],
        signals=tuple(
            Signal(**s | _numbers(s, "value", "threshold", "weight") | {"verdict": Verdict(s["verdict"])})
            for s in data["signals"]
        ),
        columns=tuple(ColumnDrift(**c | _numbers(c, "score", "threshold", "weight")) for c in data["columns"]),
        # Reports of earlier releases knew one reference alone.
        reference=data.get("reference", MonitorReport.reference),
    )


def from_decision(decision: Decision) -> dict[str, Any]:
    return {"schema": SCHEMA, **plain(asdict(decision))}


def to_decision(data: Mapping[str, Any]) -> Decision:
    _require_known(data, "decision")
    return Decision(Action(data["action"]), tuple(data["reasons"]))


def from_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"schema": SCHEMA, "findings": [plain(asdict(finding)) for finding in findings]}


def to_findings(data: Mapping[str, Any]) -> tuple[Finding, ...]:
    _require_known(data, "check")
    return tuple(Finding(**f | _numbers(f, "usual", "chance") | {"check": Check(f["check"])}) for f in data["findings"])


def from_past(past: Past) -> dict[str, Any]:
    columns = {
        name: {
            "records": {check.value: _of_record(record) for check, record in column.records.items()},
            # Keys of an object would all be text, and a number no more the number that it was.
            "values": [[plain(value), _of_record(record)] for value, record in column.values.items()],
            "other": _of_record(column.other),
            "top": _of_record(column.top),
            "seen": sorted(column.seen),
            **{limit: plain(float(getattr(column, limit))) for limit in ("low", "high", "least")},
        }
        for name, column in past.columns.items()
    }
    return {
        "schema": SCHEMA,
        "columns": columns,
        "repeated": _of_record(past.repeated),
        "days": past.days,
        "numeric": sorted(past.numeric),
    }


def to_past(data: Mapping[str, Any]) -> Past:
    _require_known(data, "past of the columns")
    columns = {
        name: ColumnPast(
            records={Check(check): Record(*record) for check, record in told["records"].items()},
            values={value: Record(*record) for value, record in told["values"]},
            other=Record(*told["other"]),
            top=Record(*told["top"]),
            seen=frozenset(told["seen"]),
            **{limit: float(told[limit]) for limit in ("low", "high", "least")},
        )
        for name, told in data["columns"].items()
    }
    return Past(columns, Record(*data["repeated"]), data["days"], frozenset(data["numeric"]))


def _of_record(record: Record) -> list[float]:
    return [float(record.a), float(record.b), float(record.highest)]


def from_guards(findings: Sequence[GuardFinding]) -> dict[str, Any]:
    return {"schema": SCHEMA, "findings": [plain(asdict(finding)) for finding in findings]}


def to_guards(data: Mapping[str, Any]) -> tuple[GuardFinding, ...]:
    _require_known(data, "guards' finding")
    kinds = {"guard": Guard, "outcome": Outcome}
    return tuple(
        GuardFinding(**f | _numbers(f, "value", "usual", "low", "high") | {k: kind(f[k]) for k, kind in kinds.items()})
        for f in data["findings"]
    )


def from_calibration(calibration: Calibration) -> dict[str, Any]:
    return {"schema": SCHEMA, **plain(asdict(calibration))}


def to_calibration(data: Mapping[str, Any]) -> Calibration:
    _require_known(data, "calibration")
    first, last = (None if data[end] is None else date.fromisoformat(data[end]) for end in ("first", "last"))
    learned = tuple(
        Learned(**own | _numbers(own, "documented", "threshold", "median", "highest", "chance"))
        for own in data["learned"]
    )
    return Calibration(date.fromisoformat(data["as_of"]), learned, first, last, data["weeks"])


def from_sequence(policy: SequencePolicy) -> dict[str, Any]:
    return {"schema": SCHEMA, **plain(asdict(policy))}


def to_sequence(data: Mapping[str, Any]) -> SequencePolicy:
    _require_known(data, "test policy")
    return SequencePolicy(**{k: v for k, v in data.items() if k != "schema"})


def from_evidence(steps: Sequence[Step]) -> dict[str, Any]:
    return {"schema": SCHEMA, "steps": [plain(asdict(step)) for step in steps]}


def to_evidence(data: Mapping[str, Any]) -> tuple[Step, ...]:
    _require_known(data, "trial's evidence")
    return tuple(
        Step(**s | _numbers(s, "gain", "low", "high") | {"day": date.fromisoformat(s["day"])}) for s in data["steps"]
    )


def _numbers(data: Mapping[str, Any], *names: str) -> dict[str, float | None]:
    return {n: None if data[n] is None else float(data[n]) for n in names}


def _require_known(data: Mapping[str, Any], what: str) -> None:
    if data.get("schema") != SCHEMA:
        raise BadInput(
            f"A stored {what} has the form {data.get('schema')!r}; this version of the project reads form {SCHEMA}."
            " Use the version of the project that wrote it, or a newer one."
        )
