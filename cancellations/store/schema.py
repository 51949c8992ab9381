"""The schema's version: which one a database has, and how it comes to the present one.

Works from a checkout and from an installed package alike: the migrations travel beside this file.
The `alembic` command finds the same folder through `[tool.alembic]` in pyproject.toml.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, NullPool, inspect, text
from sqlalchemy.exc import OperationalError

from cancellations.errors import BadInput
from cancellations.store.engine import BUSY_SECONDS, connect, parse, require_writable, sqlite_file, translated
from cancellations.store.tables import metadata, scores

if TYPE_CHECKING:
    from alembic.config import Config

# This version's revision, written down so that whoever finds it in a database need not ask alembic.
HEAD = "0008"
MIGRATIONS = Path(__file__).parent / "migrations"
# Any fixed number serves: it only tells our migrations from other users of the server's advisory locks.
_MIGRATION_LOCK = 5_124_907


def upgrade(url: str) -> tuple[str | None, str]:
    """Brings a database to this version's schema, creating it when there is none.

    Returns the revisions before and after. All or nothing; a second process waits, and then finds
    nothing to do. Raises `BadInput` when a newer version wrote the database.
    """
    from alembic import command

    parsed = parse(url)
    prepare(parsed)
    with migrating(parsed) as connection:
        before = _current(connection)
        _require_known(before, parsed)
        command.upgrade(_config(connection), "head")
        return before, HEAD


def prepare(url: URL) -> None:
    """Makes the folder of a SQLite file, where it lacks; raises `BadInput` when the file cannot be written."""
    path = sqlite_file(url)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"The folder {path.parent} cannot be made ({error.strerror}). Choose another home folder."
        ) from error
    require_writable(path)


def rebuild(connection: Connection, to: str) -> None:
    """Gives a database of ours that holds no rows the schema of a revision, whichever it has; `migrating` connects."""
    from alembic import command

    if _current(connection) not in (None, to):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {scores.name}")
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    command.upgrade(_config(connection), to)


def finish(connection: Connection) -> None:
    """Goes on from there to this version's schema, with all rows."""
    from alembic import command

    command.upgrade(_config(connection), "head")


def revision(url: str) -> str | None:
    """The revision that a database has; None when it has no schema, or does not exist."""
    return _revision(parse(url))


def check(url: str) -> list[str]:
    """Differences between a database and the tables and the view of this version; empty when there is none."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with _reading(parse(url)) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = [_told(difference) for difference in compare_metadata(context, metadata)]
        # Only migrations know the view, so nothing else compares it.
        if scores.name not in inspect(connection).get_view_names():
            differences.append(f"view {scores.name} is missing")
        return differences


def _told(difference: Any) -> str:
    """One of alembic's differences in words; whatever has none stays as it is."""
    if isinstance(difference, list):  # what is changed of one column
        return "; ".join(_told(part) for part in difference)
    kind, *about = difference
    done, _, what = kind.partition("_")
    state = {"add": "is missing", "remove": "is not this version's"}.get(done)
    if state is None:
        _, table, column, *_, found, wanted = about
        return f"column {table}.{column} has {what} {found}, not {wanted}"
    name = f"{about[1]}.{about[2].name}" if what == "column" else about[0].name
    return f"{what} {name} {state}"


def require_current(url: URL) -> None:
    """Raises `BadInput` unless the database can be written and has this version's schema."""
    path = sqlite_file(url)
    if path is not None and path.parent.is_dir():
        require_writable(path)
    found = _revision(url)
    if found != HEAD:
        _require_known(found, url)
        where = path or url.render_as_string(hide_password=True)
        state = f"the schema of an earlier version ({found})" if found else "no schema yet"
        raise BadInput(f"The store at {where} has {state}. Run `cancellations init` to bring it to {HEAD}.")


@contextmanager
def migrating(url: URL) -> Iterator[Connection]:
    """The only migrating connection of a database, in a transaction that a normal end commits."""
    engine = connect(url, NullPool)
    with translated(url), engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            _use_wal(connection)
            # A migration may have to rebuild a table, and dropping the old one would cascade.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        yield connection
        connection.commit()


def _use_wal(connection: Connection) -> None:
    """Switches a SQLite file to write-ahead logging, for good: readers and a writer at once.

    The switch is refused at once, without the usual waiting, while another process makes it too.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def _reading(url: URL) -> Iterator[Connection]:
    with translated(url), connect(url, NullPool).connect() as connection:
        yield connection


def _revision(url: URL) -> str | None:
    path = sqlite_file(url)
    if path is not None and not path.exists():
        return None  # connecting would create it
    with _reading(url) as connection:
        return _current(connection)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _require_known(found: str | None, url: URL) -> None:
    if found is not None:
        require_known_revision(found, f"The store at {url.render_as_string(hide_password=True)}")


def require_known_revision(found: str, what: str) -> None:
    """Raises `BadInput` for a revision that this version has never heard of; `what` has it."""
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found not in known:
        raise BadInput(
            f"{what} was written by a newer version of the project"
            f" (schema {found}; this one knows up to {HEAD}). Install that version, or choose another home folder."
        )
