"""The tables of the morning mail, as text that is ready to stand in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from cancellations.domain.lines import one_line

# Longer names are cut; they are whole in the files.
HOTEL, BOOKING = 26, 44


def outlook_tables(payload: Mapping[str, Any]) -> dict[str, Any]:
    """`spans` with `rows` of hotels for each number of days, `risky` bookings, the `currency`."""
    spans = [
        {"days": days, "rows": [_span(row) for row in _hotels(list(rows))]}
        for days, rows in groupby(payload["weeks"], key=lambda row: row["days"])
    ]
    risky = payload["riskiest"]
    rows = [dict(zip(risky, cells, strict=True)) for cells in zip(*risky.values(), strict=True)]
    return {"spans": spans, "risky": [_risky(row) for row in rows], "currency": one_line(payload["currency"])}


def _hotels(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One hotel is its own total; of many the largest are told, and how many there are."""
    total, *hotels = rows
    # Mails that wait since an earlier version do not know of how many.
    of = total.get("of", len(hotels))
    everywhere = f"All {of:,} hotels" if of > len(hotels) else "All hotels"
    return [*hotels, {**total, "hotel": everywhere}] if len(hotels) > 1 else hotels


def _span(row: Mapping[str, Any]) -> dict[str, str]:
    priced = row["at_risk"] is not None
    between = _between(row["expected_low"], row["expected_high"])
    money = _between(row["at_risk_low"], row["at_risk_high"]) if priced else "no price is known"
    expected, at_risk = f"{row['expected']:,.0f}", f"{row['at_risk']:,.0f}" if priced else "–"
    return {
        "hotel": _cut(row["hotel"], HOTEL),
        "on_books": f"{row['on_books']:,.0f}",
        "expected": f"{expected} ({between})",
        "expected_alone": expected,
        "expected_between": between,
        "at_risk": f"{at_risk} ({money})",
        "at_risk_alone": at_risk,
        "at_risk_between": money,
    }


def _risky(row: Mapping[str, Any]) -> dict[str, str]:
    nights, size = row["nights"], row["group_size"]
    return {
        "booking": _cut(row["reservation_id"], BOOKING),
        "hotel": _cut(row["hotel"], HOTEL),
        "arrival": one_line(row["arrival_on"]),
        "stay": "1 night" if nights == 1 else f"{nights} nights",
        "remaining": f"{row['remaining']:.0%}",
        "value": f"{row['value']:,.0f}",
        "value_at_risk": f"{row['value_at_risk']:,.0f}",
        "group": "" if size == 1 else f"one of {size} booked together",
    }


def _between(low: float, high: float) -> str:
    return f"{low:,.0f} to {high:,.0f}"


def _cut(text: object, length: int) -> str:
    line = one_line(text)
    return line if len(line) <= length else f"{line[: length - 1]}…"
