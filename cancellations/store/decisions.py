"""What was found about days and windows: checks, the monitor's decisions, and the requests they lead to."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from sqlalchemy import Column, Row, case, select, update

from cancellations.domain.calibration import Calibration
from cancellations.domain.checks import DayCheck
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import BadInput
from cancellations.ports import StoredDecision
from cancellations.store import tables
from cancellations.store.records import (
    from_calibration,
    from_decision,
    from_findings,
    from_report,
    to_calibration,
    to_decision,
    to_findings,
    to_report,
)
from cancellations.store.transaction import Transaction


class Decisions(Transaction):
    """The part of `ports.UnitOfWork` that knows checks, decisions and requests."""

    def report_exists(self, champion: str, window_end: date) -> bool:
        found = select(tables.decisions.c.number).where(
            tables.decisions.c.champion == champion, tables.decisions.c.window_end == window_end
        )
        return self._read(found).first() is not None

    def add_decision(self, stored: StoredDecision) -> bool:
        values = {
            "report_id": stored.report_id,
            "champion": stored.report.champion,
            "window_end": stored.report.window.end,
            "action": stored.decision.action.value,
            "report": from_report(stored.report),
            "decision": from_decision(stored.decision),
            "request_id": stored.request_id,
            "recorded_at": stored.recorded_at,
        }
        return self._write(self._insert(tables.decisions).values(values).on_conflict_do_nothing()) == 1

    def decisions(self, champion: str | None = None, limit: int | None = None) -> list[StoredDecision]:
        query = (
            select(tables.decisions)
            .order_by(tables.decisions.c.window_end.desc(), tables.decisions.c.number.desc())
            .limit(limit)
        )
        if champion is not None:
            query = query.where(tables.decisions.c.champion == champion)
        return [_decision(row) for row in self._read(query)]

    def decision(self, report_id: str) -> StoredDecision | None:
        row = self._read(select(tables.decisions).where(tables.decisions.c.report_id == report_id)).first()
        return None if row is None else _decision(row)

    def add_check(self, found: DayCheck, now: datetime) -> bool:
        values = {
            "day": found.day,
            "bookings": found.bookings,
            "learned_from": found.learned_from,
            "findings": from_findings(found.findings),
            "recorded_at": now,
        }
        return self._write(self._insert(tables.checks).values(values).on_conflict_do_nothing()) == 1

    def checks(self, until: date | None = None, limit: int | None = None) -> list[DayCheck]:
        query = select(tables.checks).order_by(tables.checks.c.day.desc()).limit(limit)
        if until is not None:
            query = query.where(tables.checks.c.day <= until)
        return [
            DayCheck(row.day, row.bookings, row.learned_from, to_findings(row.findings)) for row in self._read(query)
        ]

    def add_calibration(self, calibration: Calibration, now: datetime) -> None:
        values = {"as_of": calibration.as_of, "learned": from_calibration(calibration), "recorded_at": now}
        self._write(self._insert(tables.calibrations).values(values))

    def calibration(self, until: date) -> Calibration | None:
        newest = select(tables.calibrations.c.learned).order_by(tables.calibrations.c.number.desc()).limit(1)
        found = self._read(newest.where(tables.calibrations.c.as_of <= until)).scalar()
        return None if found is None else to_calibration(found)

    def hold_requests(self) -> None:
        self._lock_table(tables.requests)

    def add_request(self, request: RetrainRequest, now: datetime) -> bool:
        values = {**asdict(request), "state": request.state.value, "created_at": now, "state_since": now}
        return self._write(self._insert(tables.requests).values(values).on_conflict_do_nothing()) == 1

    def request(self, request_id: str) -> RetrainRequest | None:
        row = self._read(select(tables.requests).where(tables.requests.c.request_id == request_id)).first()
        return None if row is None else _request(row)

    def requests(self, *states: RequestState) -> list[RetrainRequest]:
        query = select(tables.requests).order_by(tables.requests.c.number)
        if states:
            query = query.where(tables.requests.c.state.in_([s.value for s in states]))
        return [_request(row) for row in self._read(query)]

    def update_request(self, request: RetrainRequest, now: datetime) -> None:
        state = request.state.value
        since = case((tables.requests.c.state == state, tables.requests.c.state_since), else_=now)
        values = {**asdict(request), "state": state, "state_since": since}
        if not self._write(
            update(tables.requests).where(tables.requests.c.request_id == request.request_id).values(values)
        ):
            raise _unknown(request.request_id)

    def waiting_since(self, request_id: str) -> datetime:
        return self._instant(tables.requests.c.state_since, request_id)

    def made_at(self, request_id: str) -> datetime:
        return self._instant(tables.requests.c.created_at, request_id)

    def _instant(self, column: Column[datetime], request_id: str) -> datetime:
        found = self._read(select(column).where(tables.requests.c.request_id == request_id)).scalar()
        if found is None:
            raise _unknown(request_id)
        return found


def _decision(row: Row[Any]) -> StoredDecision:
    return StoredDecision(
        row.report_id, to_report(row.report), to_decision(row.decision), row.request_id, row.recorded_at
    )


def _request(row: Row[Any]) -> RetrainRequest:
    return RetrainRequest(
        request_id=row.request_id,
        as_of=row.as_of,
        reason=row.reason,
        state=RequestState(row.state),
        attempts=row.attempts,
        report_id=row.report_id,
        champion=row.champion,
        version=row.version,
        detail=tuple(row.detail),
    )


def _unknown(request_id: str) -> BadInput:
    return BadInput(f"There is no retrain request {request_id!r}. `cancellations status` lists the pending ones.")
