"""Who serves, who may work on it: versions, the promotion ledger, and leases with fencing tokens."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, datetime, timedelta

from sqlalchemy import insert, or_, select, update

from cancellations.domain.labels import Labels
from cancellations.domain.promotion import Change, LedgerRow, Standing
from cancellations.errors import EpochMismatch, LeaseLost
from cancellations.ports import VersionRecord
from cancellations.settings import MODEL
from cancellations.store import tables
from cancellations.store.transaction import Transaction


class Ledger(Transaction):
    """The part of `ports.UnitOfWork` that knows versions and the standing."""

    def standing(self) -> Standing:
        return self._standing(hold=False)

    def _standing(self, *, hold: bool) -> Standing:
        """With `hold` nobody else changes it, or holds it, until this transaction ends."""
        query = select(tables.standing.c.champion, tables.standing.c.challenger, tables.standing.c.epoch).where(
            tables.standing.c.model == MODEL
        )
        if hold:
            self._lock()
            query = query.with_for_update()  # nothing on SQLite, where the only writer holds everything
        row = self._read(query).first()
        return Standing(None, None, 0) if row is None else Standing(row.champion, row.challenger, row.epoch)

    def change_standing(
        self,
        seen: Standing,
        *,
        champion: str | None,
        challenger: str | None,
        change: Change,
        reason: str,
        by: str,
        request_id: str | None = None,
        trial_id: str | None = None,
        as_of: date,
        now: datetime,
    ) -> Standing:
        following = Standing(champion, challenger, seen.epoch + 1)
        # The database compares and sets in one statement: of two writers one finds no row to change.
        if seen.epoch == 0:
            written = self._write(
                self._insert(tables.standing).values(model=MODEL, **asdict(following)).on_conflict_do_nothing()
            )
        else:
            written = self._write(
                update(tables.standing)
                .where(tables.standing.c.model == MODEL, tables.standing.c.epoch == seen.epoch)
                .values(**asdict(following))
            )
        if not written:
            current = self.standing()
            raise EpochMismatch(
                f"The standing is at epoch {current.epoch} (champion {current.champion}), not at epoch {seen.epoch}"
                f" (champion {seen.champion}) as it was when this change was decided. Nothing was written;"
                " decide again on what stands now."
            )
        row = LedgerRow(
            epoch=following.epoch,
            champion=champion,
            challenger=challenger,
            change=change,
            reason=reason,
            by=by,
            request_id=request_id,
            trial_id=trial_id,
            as_of=as_of,
            recorded_at=now,
        )
        self._write(insert(tables.ledger).values(model=MODEL, **asdict(row) | {"change": change.value}))
        return following

    def ledger(self) -> list[LedgerRow]:
        """Oldest first."""
        query = select(*tables.ledger.columns[1:]).where(tables.ledger.c.model == MODEL).order_by(tables.ledger.c.epoch)
        return [LedgerRow(**row._asdict() | {"change": Change(row.change)}) for row in self._read(query)]

    def add_version(self, record: VersionRecord, now: datetime) -> None:
        values = {**asdict(record), "labels": record.labels.value, "recorded_at": now}
        # Only the same version again is nothing new; a second version for one request is refused.
        self._write(self._insert(tables.versions).values(values).on_conflict_do_nothing(index_elements=["version"]))

    def version(self, version: str) -> VersionRecord | None:
        row = self._read(select(tables.versions).where(tables.versions.c.version == version)).first()
        if row is None:
            return None
        metrics = {name: float(value) for name, value in row.metrics.items()}
        return VersionRecord(
            version=row.version,
            request_id=row.request_id,
            run_id=row.run_id,
            trained_as_of=row.trained_as_of,
            data_digest=row.data_digest,
            metrics=metrics,
            recipe=row.recipe,
            labels=Labels(row.labels),
        )


class Leases(Transaction):
    """The part of `ports.UnitOfWork` that lets one worker at a time do a job.

    A token is good until its lease expires or another takes it; whoever shows an old one is refused.
    """

    def acquire_lease(self, name: str, owner: str, now: datetime, ttl: timedelta) -> int | None:
        self._lock()
        taken = {"owner": owner, "expires_at": now + ttl}
        free = or_(
            tables.leases.c.expires_at.is_(None), tables.leases.c.expires_at <= now, tables.leases.c.owner == owner
        )
        statement = (
            self._insert(tables.leases)
            .values(name=name, token=1, **taken)
            .on_conflict_do_update(
                index_elements=["name"], set_={**taken, "token": tables.leases.c.token + 1}, where=free
            )
            .returning(tables.leases.c.token)
        )
        return self._read(statement).scalar()

    def lease_holder(self, name: str, now: datetime) -> str | None:
        return self._read(
            select(tables.leases.c.owner).where(tables.leases.c.name == name, tables.leases.c.expires_at > now)
        ).scalar()

    def check_lease(self, name: str, token: int, now: datetime, ttl: timedelta) -> None:
        renewed = (
            update(tables.leases)
            .where(tables.leases.c.name == name, tables.leases.c.token == token, tables.leases.c.expires_at > now)
            .values(expires_at=now + ttl)
        )
        if not self._write(renewed):
            holder = self.lease_holder(name, now)
            found = f"{holder} holds it now" if holder else "it has expired"
            raise LeaseLost(
                f"The lease {name!r} with token {token} is lost: {found}. Stop this work; nothing of it was kept."
            )

    def release_lease(self, name: str, token: int) -> None:
        self._write(
            update(tables.leases)
            .where(tables.leases.c.name == name, tables.leases.c.token == token)
            .values(expires_at=None)
        )
