"""The judge of promises can say no: evidence of a good end is spoiled, and what is broken is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from promises import Evidence, Row, broken
from succession import ENDED
from undisturbed import Undisturbed

from cancellations.domain.events import ChampionChanged, DriftDetected

Spoil = Callable[[Evidence], Evidence]


def rows(table: str, change: Callable[[list[dict[str, Any]]], list[Row]]) -> Spoil:
    """The rows of a table as `change` leaves them."""
    return lambda found: replace(found, rows={**found.rows, table: change([dict(row) for row in found.rows[table]])})


def every(table: str, **values: object) -> Spoil:
    return rows(table, lambda found: [row | values for row in found])


def last(table: str, **values: object) -> Spoil:
    return rows(table, lambda found: [*found[:-1], found[-1] | values])


def without(table: str, **values: object) -> Spoil:
    return rows(table, lambda found: [row for row in found if not values.items() <= row.items()])


def again(table: str, **values: object) -> Spoil:
    """The last row stands there once more, but for some values."""
    return rows(table, lambda found: [*found, found[-1] | values])


def aliases(said: str | None = None, **moved: str) -> Spoil:
    return lambda found: replace(found, aliases={**found.aliases, **moved}, said=(said,) if said else ())


def arrived(channel: str, *ids: str) -> Spoil:
    return lambda found: replace(found, arrived={**found.arrived, channel: list(ids)})


SPOILED: dict[str, tuple[str, Spoil]] = {
    "a look that was lost": ("P2", rows("decisions", lambda found: found[1:])),
    "a window with two decisions": ("P2", again("decisions", report_id="another")),
    "a decision whose request was lost": ("P2", without("requests")),
    "a decision without its event": ("P2", without("messages", topic=DriftDetected.topic, channel="event")),
    "a decision with two mails": (
        "P2",
        rows("messages", lambda found: [*found, _drift_mail(found) | {"id": "second"}]),
    ),
    "a decision without its page": ("P2", lambda found: replace(found, pages=frozenset())),
    "a mail that was marked and never left": ("P2", arrived("mail")),
    "an event that went out under another id": (
        "P2",
        lambda found: replace(found, arrived={**found.arrived, "event": [*found.arrived["event"], "another"]}),
    ),
    "a message that waits at the end": ("P2", last("messages", state="pending")),
    "a message that was given up": ("P2", last("messages", state="dead")),
    "two who trained in one attempt": ("P3", lambda found: replace(found, workers=found.workers | {"another"})),
    "two requests that run": ("P3", lambda found: again("requests")(every("requests", state="running")(found))),
    "more retrains than the budget has": (
        "P3",
        rows("requests", lambda found: [found[0] | {"request_id": str(n)} for n in range(9)]),
    ),
    "an attempt too many": ("P4", every("requests", attempts=4)),
    "a request that was given up early": ("P4", every("requests", state="failed", attempts=2)),
    "a request that waits at the end": ("P4", every("requests", state="waiting")),
    "a request with two versions": (
        "P5",
        lambda found: replace(found, requested={**found.requested, "4": found.requested["3"]}),
    ),
    "a request with another's version": ("P5", every("requests", version="2")),
    "a version that MLflow does not know": ("P5", lambda found: replace(found, requested={})),
    "an epoch that is missing": ("P6", rows("ledger", lambda found: [row for row in found if row["epoch"] != 2])),
    "a champion who changed without a row": ("P6", every("standing", champion="2")),
    "a change without a reason": ("P6", last("ledger", reason="")),
    "a change by nobody": ("P6", last("ledger", by="")),
    "a champion who changed in a row of another kind": ("P6", last("ledger", change="challenger left")),
    "a promotion of whom the trial did not compare": ("P6", every("trials", rival="2")),
    "a promotion from another epoch than the trial's": ("P6", every("trials", epoch=1)),
    "a change that nobody was told of": ("P6", without("messages", topic=ChampionChanged.topic)),
    "an alias that differs": ("P6", aliases("alias 'champion' is version 2", champion="2")),
    "an alias that differs, which status does not say": ("P6", aliases(champion="2")),
    "two trials that run": ("P6", every("trials", state="running")),
    "a worse champion who stays": ("P7", rows("ledger", lambda found: found[:-1])),
    "a good one who was rolled back": ("P7", again("ledger", epoch=5)),
    "a rollback that holds no promotions": ("P7", without("switches")),
    "a champion whose artifact was gone before": ("P12", lambda found: replace(found, lost={"1": 3})),
    "a champion who cannot be loaded": ("P12", lambda found: replace(found, unreadable=frozenset({"1"}))),
    "scores that are not the version's": ("P12", lambda found: replace(found, misserved=frozenset({"b00001"}))),
}


def _drift_mail(found: list[dict[str, Any]]) -> dict[str, Any]:
    row = next(row for row in found if (row["topic"], row["channel"]) == (DriftDetected.topic, "mail"))
    return row | {"id": "another"}


def test_each_promise_is_seen_when_it_is_broken(succession_undisturbed: Undisturbed) -> None:
    found = succession_undisturbed.end.evidence
    assert broken(found, ENDED) == []
    for name, (promise, spoil) in SPOILED.items():
        named = {fault.partition(":")[0] for fault in broken(spoil(found), ENDED)}
        assert promise in named, f"{name}: {named or 'nothing'} was found"


def test_an_alias_may_differ_before_reconcile_if_status_says_so(succession_undisturbed: Undisturbed) -> None:
    found = aliases("alias 'champion' is version 2", champion="2")(succession_undisturbed.end.evidence)
    unsaid = replace(found, said=())
    assert len(broken(unsaid, ENDED)) == len(broken(found, ENDED)) + 1
