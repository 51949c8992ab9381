"""A database as a whole: its schema, and what must hold between tables that no constraint can say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Integer, NullPool, Select, cast, delete, false, func, literal, or_, select, union_all

from cancellations.domain.features import AGENT, ALL, COMPANY, TALLY
from cancellations.errors import BadInput
from cancellations.ports import LoadState
from cancellations.store import archive, schema, tables
from cancellations.store.archive import Archived
from cancellations.store.bookings import Bookings
from cancellations.store.engine import connect, parse, require_writable, sqlite_file, translated
from cancellations.store.unit_of_work import SqlStore, open_store


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    what: str
    remedy: str


# Of a lock that somebody else holds, when it is only asked whether one could write.
PROBE_MILLISECONDS = 3_000


@dataclass(frozen=True)
class Reached:
    """A database that could be opened and written: where it is, without a password, and what its clock said.

    `now` is None of a SQLite file, which has no clock of its own.
    """

    place: str
    now: datetime | None


class Database:
    """The database at an address, for those who look after it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def upgrade(self) -> tuple[str | None, str]:
        """Brings the schema to this version's; returns the revisions before and after."""
        return schema.upgrade(self._url)

    def revision(self) -> tuple[str | None, str]:
        """The revision of the database, None where it has no schema, and this version's."""
        return schema.revision(self._url), schema.HEAD

    def backup(self, path: Path) -> Archived:
        """Writes the store to an archive, as it is at one moment."""
        return archive.backup(self._url, path)

    def restore(self, path: Path) -> Archived:
        """Brings an archive into a store that holds nothing, all or nothing."""
        return archive.restore(self._url, path)

    def reach(self) -> Reached:
        """Opens it and begins to write, in every table, and takes it back: nothing is changed.

        Raises `BadInput` where it cannot be written or is not there, `ServiceDown` where it does not answer or
        somebody else holds its lock.
        """
        url = parse(self._url)
        file = sqlite_file(url)
        if file is not None:
            require_writable(file)
            if not file.exists():
                raise BadInput(f"there is no database {file}; make one: cancellations db upgrade")
        with translated(url), connect(url, NullPool).connect() as connection:
            if file is not None:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {PROBE_MILLISECONDS}")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                now = None
            else:
                now = connection.execute(select(func.clock_timestamp())).scalar_one()
            # Refused of a read-only file, on a standby, and where a right is missing.
            for table in tables.metadata.sorted_tables:
                connection.execute(delete(table).where(false()))
            connection.rollback()
            return Reached(url.render_as_string(hide_password=True), now)

    def check(self) -> list[Finding]:
        """Everything that is not as it should be; changes nothing. Contents are looked at in a right schema only."""
        found, wanted = self.revision()
        if found != wanted:
            has = f"the schema of revision {found}" if found else "no schema yet"
            return [Finding(f"the database has {has}; this version needs {wanted}", "run: cancellations db upgrade")]
        differences = [
            Finding(f"the schema differs from this version's: {difference}", "undo what was changed by hand")
            for difference in schema.check(self._url)
        ]
        if differences:
            return differences
        with self._opened() as store, store.connection() as connection:
            return Integrity(connection).findings()

    def recount(self) -> int:
        """Rebuilds the tallies from the bookings, all or nothing; returns how many of them were wrong."""
        with self._opened() as store, store.connection() as connection:
            work = Integrity(connection)
            mended = work.recount()
            work.commit()
            return mended

    @contextmanager
    def _opened(self) -> Iterator[SqlStore]:
        store = open_store(self._url)
        try:
            yield store
        finally:
            store.close()


class Integrity(Bookings):
    """Looks over all rows. Each look is one statement, so what others write meanwhile is no finding."""

    def findings(self) -> list[Finding]:
        found = [
            (
                self._count(self._wrong_tallies()),
                "tallies of agents, companies and days differ from a recount of the bookings",
                "run: cancellations db recount",
            ),
            (
                self._count(_lossy_loads()),
                "loads that are done do not add up: read must be outside + loaded + unchanged + updated + quarantined",
                "load their sources again; what is there already counts as unchanged",
            ),
            (
                self._count(_wrong_scores()),
                "bookings show another score in the view scores than the last one that was served of them",
                "make the view again as migration 0002 does, or put a copy of yours in the database's place",
            ),
            (
                self._count(_unfounded_servings()),
                "scores that were served are missing from the predictions, or are other ones there",
                "run: cancellations score, which predicts again what is missing; else put a copy of yours in the"
                " database's place",
            ),
        ]
        counted = [Finding(f"{count:,} {what}", remedy) for count, what, remedy in found if count]
        return [*self._damage(), *self._orphans(), *counted]

    def _damage(self) -> list[Finding]:
        """What SQLite finds in its file; PostgreSQL looks after its own."""
        if not self._sqlite:
            return []
        with translated(self._connection.engine.url):
            told = self._connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        # A load that does not add up is told below, in words.
        damage = [line for line in told if line != "ok" and not line.startswith("CHECK constraint")]
        return [Finding(f"the file is damaged: {damage[0]}", "put a copy of yours in its place")] if damage else []

    def _orphans(self) -> list[Finding]:
        """Rows that point at nothing: SQLite lets others than us write them."""
        found = []
        for table in tables.metadata.sorted_tables:
            for key in table.foreign_keys:
                there = select(1).where(key.column == key.parent).exists()
                count = self._count(select(key.parent).where(~there))
                if count:
                    owner = key.column.table.name
                    found.append(
                        Finding(
                            f"{count:,} rows of {table.name} belong to none of {owner}",
                            f"load the source of the missing {owner} again, or put a copy of yours in the"
                            " database's place",
                        )
                    )
        return found

    def recount(self) -> int:
        self._lock_table(tables.reservations)
        self._lock_table(tables.outcomes)
        mended = self._add_to_tallies(self._wrong_tallies())
        self._write(delete(tables.tallies).where(tables.tallies.c.bookings == 0))
        return mended

    def _count(self, rows: Select[tuple[object, ...]]) -> int:
        return int(self._read(select(func.count()).select_from(rows.subquery())).scalar_one())

    def _wrong_tallies(self) -> Select[tuple[object, ...]]:
        """Keys of tallies with the number of bookings that they lack."""
        place = self._places().subquery().c
        counted = [
            select(
                literal(kind).label("kind"), key.label("key"), place.arrival_on, place.lag, literal(1).label("bookings")
            ).where(key.is_not(None))
            for kind, key in ((ALL, literal("")), (AGENT, place.agent), (COMPANY, place.company))
        ]
        kept = select(*(tables.tallies.c[name] for name in TALLY[:-1]), -tables.tallies.c.bookings)
        both = union_all(*counted, kept).subquery()
        key = [both.c[name] for name in TALLY[:-1]]
        lacking = cast(func.sum(both.c.bookings), Integer)
        return select(*key, lacking.label("bookings")).where(literal(value=True)).group_by(*key).having(lacking != 0)


def _lossy_loads() -> Select[tuple[object, ...]]:
    load = tables.loads.c
    told = load.outside + load.loaded + load.unchanged + load.updated + load.quarantined
    return select(load.number).where(
        load.state == LoadState.DONE.value, or_(load.read != told, load.applied != load.read)
    )


def _unfounded_servings() -> Select[tuple[object, ...]]:
    serving, predicted = tables.servings.c, tables.predictions.c
    same = select(1).where(
        predicted.reservation_id == serving.reservation_id,
        predicted.model_version == serving.model_version,
        predicted.probability == serving.probability,
    )
    return select(serving.reservation_id).where(~same.exists())


def _wrong_scores() -> Select[tuple[object, ...]]:
    serving, score = tables.servings.c, tables.scores.c
    last = select(serving.reservation_id, func.max(serving.number).label("number")).group_by(serving.reservation_id)
    newest = last.subquery()
    told = [column for column in tables.scores.columns if column.name in serving]
    served = tables.servings.join(
        newest, (newest.c.reservation_id == serving.reservation_id) & (newest.c.number == serving.number)
    )
    same = [score[column.name].is_not_distinct_from(serving[column.name]) for column in told]
    return (
        select(newest.c.reservation_id)
        .select_from(served.outerjoin(tables.scores, score.reservation_id == newest.c.reservation_id))
        .where(or_(*(~equal for equal in same)))
    )
