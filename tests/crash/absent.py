"""What is gone in the middle of a step, MLflow or the database, and comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from act import DOWN, Place
from children import Children
from desk import HURRIED
from dying import at_a_meeting, go_on
from sqlalchemy import NullPool, create_engine, make_url, text
from undisturbed import Undisturbed

# Takes something away from a world when it is told to, until the end.
Absence = Callable[[Place], AbstractContextManager[Callable[[], None]]]


@contextmanager
def gone(place: Place) -> Iterator[Callable[[], None]]:
    """MLflow's database is not to be opened from a call on until the end."""
    (place.outside / HURRIED).touch()
    database = place.outside / "mlflow.db"
    away = database.with_suffix(".away")

    def take() -> None:
        database.rename(away)
        database.mkdir()

    yield take
    database.rmdir()
    away.rename(database)


@contextmanager
def closed(place: Place) -> Iterator[Callable[[], None]]:
    """The store lets nobody in from a call on: its connections are cut, or somebody holds its lock, until the end."""
    url = make_url(place.url)
    if url.get_backend_name() == "sqlite":
        (place.outside / HURRIED).touch()
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        yield lambda: connection.execute("BEGIN IMMEDIATE") and None
        connection.close()
        return
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"

    def terminate() -> None:
        with engine.connect() as connection:
            connection.execute(text(cut), {"name": url.database})

    yield terminate


def done_when_it_is_back(
    undisturbed: Undisturbed, children: Children, moment: str, absence: Absence, says: str = ""
) -> None:
    """Something goes at a moment, as `promote: set_alias`: the step says so, and done again it ends as undisturbed."""
    name, call = moment.split(": ")
    step = undisturbed.step(name)
    place = undisturbed.world(step)
    with absence(place) as take:
        assert at_a_meeting(children, place, step, call, take) == DOWN, place.failure
        assert says in place.failure
    go_on(undisturbed, children, place, step)
