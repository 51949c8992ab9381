"""What must hold of a world whatever died in it, and the evidence by which it is judged.

The evidence is read past our own code wherever that is possible: from tables, from MLflow's database and
files, and from what arrived at the post. Judging is pure, so that a test sees each promise found broken.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from act import Place, lines
from sqlalchemy import NullPool, Table, create_engine, select

from cancellations.domain.events import ChampionChanged, DriftDetected
from cancellations.domain.promotion import Change, TrialState
from cancellations.domain.retraining import Action, RequestState
from cancellations.errors import CancellationsError
from cancellations.ports import MessageState, Registry, Store
from cancellations.store import tables
from cancellations.usecases.status import status

Row = Mapping[str, Any]
READ: tuple[Table, ...] = (
    tables.decisions,
    tables.requests,
    tables.versions,
    tables.standing,
    tables.ledger,
    tables.trials,
    tables.messages,
    tables.switches,
)
# Changes of a ledger's row that change the champion.
CROWNING = {Change.FIRST.value, Change.PROMOTED.value, Change.ROLLED_BACK.value, Change.RECALIBRATED.value}


@dataclass(frozen=True)
class Rules:
    """What a story promises beyond what all do.

    `windows`: those that have been looked at, by champion and last day. `ended`: it is over, so nothing waits.
    `changes`: how its ledger then reads, row by row, with who made each change.
    """

    max_attempts: int
    budget: int
    windows: frozenset[tuple[str, date]] = frozenset()
    ended: bool = False
    changes: tuple[tuple[Change, str], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """`rows` of the store by table. Of MLflow: `requested`, each version's request, `aliases`, and `pages`, ids of
    reports that have theirs. `arrived`: ids by channel, as often as they came. `workers`: those that began a fit.

    `unreadable`: versions that cannot be loaded, of those that stand; `misserved`: bookings whose served score is not
    what the version's artifact says of them. `said`: what `status` says of aliases that are not as the ledger wants
    them. `lost`: version and epoch, for each artifact that was gone from then on.
    """

    rows: Mapping[str, Sequence[Row]]
    requested: Mapping[str, str]
    aliases: Mapping[str, str]
    pages: frozenset[str]
    arrived: Mapping[str, Sequence[str]]
    workers: frozenset[str]
    unreadable: frozenset[str]
    misserved: frozenset[str]
    said: tuple[str, ...]
    lost: Mapping[str, int]

    @property
    def standing(self) -> Row:
        return self.rows["standing"][0]

    @property
    def ledger(self) -> list[Row]:
        return sorted(self.rows["ledger"], key=lambda row: row["epoch"])

    @property
    def wanted(self) -> Mapping[str, str]:
        """Aliases as the ledger has them."""
        return {place: self.standing[place] for place in ("champion", "challenger") if self.standing[place] is not None}

    def told(self, topic: str, **payload: object) -> Counter[str]:
        """Channels of the messages that tell something."""
        found = [m for m in self.rows["messages"] if m["topic"] == topic and payload.items() <= m["payload"].items()]
        return Counter(str(m["channel"]) for m in found)


def broken(found: Evidence, rules: Rules) -> list[str]:
    """A sentence for each promise that does not hold, its number first."""
    judges = {
        "P2": _decisions,
        "P3": _one_at_a_time,
        "P4": _requests,
        "P5": _versions,
        "P6": _ledger,
        "P7": _undone,
        "P12": _served,
    }
    return [f"{name}: {fault}" for name, judge in judges.items() for fault in judge(found, rules)]


def _decisions(found: Evidence, rules: Rules) -> Iterator[str]:
    """A decision is recorded once per (champion, window) and never lost; it leaves at least once, with one id."""
    taken = Counter((row["champion"], row["window_end"]) for row in found.rows["decisions"])
    for window in taken.keys() | rules.windows:
        if taken[window] != 1:
            yield f"window {window} has {taken[window]} decisions"
    requests = {row["request_id"]: row for row in found.rows["requests"]}
    for row in found.rows["decisions"]:
        if not Action(row["action"]).retrains:
            continue
        request = requests.get(row["request_id"])
        if request is None or request["report_id"] != row["report_id"]:
            yield f"decision {row['report_id']} has no request"
        told = found.told(DriftDetected.topic, request_id=row["request_id"])
        if told != Counter(channel.value for channel in DriftDetected.channels):
            yield f"decision {row['report_id']} is told by {dict(told)}"
        if row["report_id"] not in found.pages:
            yield f"decision {row['report_id']} has no page"
    known = {(row["channel"], row["id"]) for row in found.rows["messages"]}
    for channel, ids in found.arrived.items():
        for stranger in sorted({i for i in ids if (channel, i) not in known}):
            yield f"{channel} {stranger} arrived and stands in no outbox"
    for row in found.rows["messages"]:
        came = row["id"] in found.arrived[row["channel"]]
        if row["state"] == MessageState.SENT.value and not came:
            yield f"{row['channel']} {row['topic']} counts as sent and never arrived"
        if rules.ended and row["state"] != MessageState.SENT.value:
            yield f"{row['channel']} {row['topic']} is still {row['state']}"


def _one_at_a_time(found: Evidence, rules: Rules) -> Iterator[str]:
    """Each worker that trains has an attempt of its own, and no more are asked for than the budget has."""
    attempts = sum(row["attempts"] for row in found.rows["requests"])
    if len(found.workers) > attempts:
        yield f"{len(found.workers)} workers trained in {attempts} attempts"
    running = [row["request_id"] for row in found.rows["requests"] if row["state"] == RequestState.RUNNING.value]
    if len(running) > 1:
        yield f"{running} run at once"
    automatic = sum(row["report_id"] is not None for row in found.rows["requests"])
    if automatic > rules.budget:
        yield f"{automatic} retrains were asked for, the budget is {rules.budget}"


def _requests(found: Evidence, rules: Rules) -> Iterator[str]:
    """Every request ends, within its attempts."""
    for row in found.rows["requests"]:
        state = RequestState(row["state"])
        if row["attempts"] > rules.max_attempts:
            yield f"request {row['request_id']} had {row['attempts']} attempts of {rules.max_attempts}"
        if state is RequestState.FAILED and row["attempts"] < rules.max_attempts:
            yield f"request {row['request_id']} failed after {row['attempts']} attempts of {rules.max_attempts}"
        if rules.ended and not state.final:
            yield f"request {row['request_id']} is still {state}"


def _versions(found: Evidence, rules: Rules) -> Iterator[str]:
    """One MLflow version per request, and it is the one that the ledger knows."""
    for request_id, versions in Counter(found.requested.values()).items():
        if versions > 1:
            yield f"request {request_id} has {versions} versions"
    for row in found.rows["versions"]:
        if found.requested.get(row["version"]) != row["request_id"]:
            yield f"version {row['version']} of request {row['request_id']} is not MLflow's"
    for row in found.rows["requests"]:
        made = RequestState(row["state"]) is RequestState.CANDIDATE
        if made and found.requested.get(row["version"]) != row["request_id"]:
            yield f"request {row['request_id']} has ended with version {row['version']}, which is another's"


def _ledger(found: Evidence, rules: Rules) -> Iterator[str]:
    """The champion changes from the expected version only, with a reason; alias and ledger agree, and are told."""
    ledger, standing = found.ledger, found.standing
    if [row["epoch"] for row in ledger] != list(range(1, len(ledger) + 1)):
        yield f"the ledger's epochs are {[row['epoch'] for row in ledger]}"
    held = {name: ledger[-1][name] for name in ("champion", "challenger", "epoch")}
    if held != {name: standing[name] for name in held}:
        yield f"the ledger ends with {held}, the standing is another one"
    trials = {row["trial_id"]: row for row in found.rows["trials"]}
    for row in ledger:
        if not row["by"] or not row["reason"]:
            yield f"epoch {row['epoch']} has no reason"
    for before, row in pairwise(ledger):
        if (before["champion"] != row["champion"]) != (row["change"] in CROWNING):
            yield f"epoch {row['epoch']} says {row['change']}, champion {before['champion']} to {row['champion']}"
        if row["change"] not in CROWNING:
            continue
        told = found.told(ChampionChanged.topic, epoch=row["epoch"], version=row["champion"])
        if told != Counter(channel.value for channel in ChampionChanged.channels):
            yield f"epoch {row['epoch']} is told by {dict(told)}"
        trial = trials.get(row["trial_id"])
        if row["trial_id"] is not None and (
            trial is None
            or (trial["champion"], trial["rival"]) != (before["champion"], row["champion"])
            or trial["epoch"] != before["epoch"]
            or trial["state"] not in (TrialState.PROMOTED.value, TrialState.ROLLED_BACK.value)
        ):
            yield f"epoch {row['epoch']} rests on {row['trial_id']}, which asked for something else"
    if found.aliases != found.wanted:
        yield f"aliases are {found.aliases}, the ledger wants {found.wanted}"
        if not found.said:
            yield "and status says nothing of it"
    opened = [row["trial_id"] for row in found.rows["trials"] if not TrialState(row["state"]).final]
    if len(opened) > 1:
        yield f"{opened} run at once"


def _undone(found: Evidence, rules: Rules) -> Iterator[str]:
    """What proved better is promoted once, and rolled back once when it proves worse; then promotions are held."""
    changes = tuple((Change(row["change"]), row["by"]) for row in found.ledger)
    if rules.ended and changes != rules.changes:
        yield f"the ledger reads {changes}"
    rolled_back = any(change is Change.ROLLED_BACK for change, _ in changes)
    if rolled_back != any(row["name"] == "promotions" for row in found.rows["switches"]):
        yield f"{'a' if rolled_back else 'no'} rollback, and promotions are {'not ' if rolled_back else ''}held"


def _served(found: Evidence, rules: Rules) -> Iterator[str]:
    """A version that cannot be loaded does not become champion, and what is served is what its artifact says."""
    for row in found.ledger:
        if row["change"] in CROWNING and row["epoch"] > found.lost.get(row["champion"], row["epoch"]):
            yield f"epoch {row['epoch']} made version {row['champion']} champion, whose artifact was gone"
    champion = found.standing["champion"]
    if champion in found.unreadable and champion not in found.lost:
        yield f"champion {champion} cannot be loaded"
    if found.misserved:
        yield f"{len(found.misserved)} bookings are served what no version says of them"


# --- evidence -------------------------------------------------------------------------------------


def evidence(place: Place, store: Store, registry: Registry, as_of: date) -> Evidence:
    """All of it; takes the versions that stand from MLflow anew."""
    rows = _rows(place.url)
    unreadable, misserved = _tried(rows, store, registry)
    with sqlite3.connect(place.outside / "mlflow.db") as mlflow:
        requested = dict(mlflow.execute("SELECT version, value FROM model_version_tags WHERE key = 'request_id'"))
        aliases = dict(mlflow.execute("SELECT alias, version FROM registered_model_aliases"))
    mlflow.close()
    arrived = {
        kind: [json.loads(line)["id"] for line in lines(place.outside / f"{kind}s")] for kind in ("event", "mail")
    }
    found = Evidence(
        rows=rows,
        requested={str(version): request for version, request in requested.items()},
        aliases={alias: str(version) for alias, version in aliases.items()},
        pages=frozenset(page.parent.name for page in place.outside.glob("artifacts/*/artifacts/reports/*/*.html")),
        arrived=arrived,
        workers=frozenset(lines(place.outside / "fits")),
        unreadable=unreadable,
        misserved=misserved,
        said=(),
        lost={v: int(epoch) for v, epoch in (line.split() for line in lines(place.outside / "lost"))},
    )
    agree = found.aliases == found.wanted
    return found if agree else replace(found, said=status(store, registry, as_of).disagreements)


def _rows(url: str) -> dict[str, list[Row]]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return {t.name: [dict(row) for row in connection.execute(select(t)).mappings()] for t in READ}


def _tried(
    rows: Mapping[str, Sequence[Row]], store: Store, registry: Registry
) -> tuple[frozenset[str], frozenset[str]]:
    """Versions that stand and cannot be loaded; bookings that are served something else than theirs says."""
    unreadable, misserved = set(), set()
    stand = {rows["standing"][0][name] for name in ("champion", "challenger")} - {None}
    with store.begin() as work:
        served = work._read(select(tables.scores)).mappings().all()  # type: ignore[attr-defined]
    for version in sorted(stand):
        try:
            model = registry.load(version, fresh=True)
        except CancellationsError:
            unreadable.add(version)
            continue
        ours = {row["reservation_id"]: row["probability"] for row in served if row["model_version"] == version}
        if not ours:
            continue
        with store.begin() as work:
            features = work.features(pd.Series(list(ours)))
        said = dict(zip(features.index, model.predict(features), strict=True))
        misserved |= {i for i, p in ours.items() if i not in said or not np.isclose(said[i], p, atol=1e-9)}
    return frozenset(unreadable), frozenset(misserved)
