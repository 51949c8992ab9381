"""`backup` and `restore`: a store in one file, from either database into either, whole or not at all."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, Column, Date, Double, Integer, NullPool, Table, create_engine, inspect, select

from cancellations.errors import BadInput, Refused
from cancellations.store import Database, SqlStore, revision, schema, upgrade
from cancellations.store.archive import MANIFEST
from cancellations.store.engine import connect, parse
from cancellations.store.tables import Instant, metadata

ROWS = 3
NOW = datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)
NUMBERS = (0.1 + 0.2, 5e-324, -1.7976931348623157e308)
TEXTS = ('He said "no";\nthen, left\t', "", "Zürich 漢字 '; DROP TABLE versions; --")


def a_value(column: Column[Any], row: int) -> Any:
    """What is hard to carry, and different in each row where it must be."""
    key = column.primary_key or column.unique or column.table.name in ("requests", "versions", "decisions", "checks")
    if column.nullable and row == 1:
        return None
    if isinstance(column.type, Date):
        return date(1999, 12, 31) + timedelta(days=40_000 * row) if key else date(2024, 2, 29)
    if isinstance(column.type, Instant):
        return NOW + timedelta(microseconds=row)
    if isinstance(column.type, Boolean):
        return row % 2 == 0
    if isinstance(column.type, Integer):
        return row + 1 if key else 2**31 - 1 - row
    if isinstance(column.type, Double):
        return NUMBERS[row]
    if isinstance(column.type, JSON):
        return {"of": [1, 2.5, None, True, TEXTS[row]], "deep": {"é": 0.1}}
    return f"{row}{TEXTS[0]}" if key else TEXTS[row]


def fill(url: str) -> None:
    """Three rows in each table that there is; nothing is left out, also not what is added later."""
    engine = connect(parse(url), NullPool)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            rows = [{c.name: a_value(c, row) for c in table.columns} for row in range(ROWS)]
            for key in table.foreign_keys:
                owners = connection.execute(select(key.column)).scalars().all()
                for row, owner in zip(rows, owners, strict=True):
                    row[key.parent.name] = owner
            connection.execute(table.insert(), rows)


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    engine = connect(parse(url), NullPool)

    def rows(connection: Any, table: Table) -> list[tuple[Any, ...]]:
        found = connection.execute(select(table).order_by(*table.primary_key.columns))
        return [tuple(row) for row in found]

    with engine.connect() as connection:
        return {table.name: rows(connection, table) for table in metadata.sorted_tables}


@pytest.fixture
def filled(store: SqlStore, store_url: str) -> str:
    fill(store_url)
    return store_url


@pytest.fixture
def archive(filled: str, tmp_path: Path) -> Path:
    path = tmp_path / "store.zip"
    Database(filled).backup(path)
    return path


def test_every_row_of_every_table_comes_back_from_either_database_in_either(
    filled: str, another_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "store.zip"
    made = Database(filled).backup(path)
    assert made.rows == dict.fromkeys((table.name for table in metadata.sorted_tables), ROWS)
    assert Database(another_url).restore(path) == made
    assert content(another_url) == content(filled)
    assert revision(another_url) == schema.HEAD
    # And the next number is one that nobody has.
    with connect(parse(another_url), NullPool).begin() as connection:
        again = {c.name: a_value(c, 0) for c in metadata.tables["calibrations"].columns if c.name != "number"}
        connection.execute(metadata.tables["calibrations"].insert(), again)
        numbers = connection.execute(select(metadata.tables["calibrations"].c.number)).scalars().all()
    assert sorted(numbers) == [1, 2, 3, 4]


def test_an_archive_of_a_store_that_is_written_meanwhile_is_of_one_moment(
    store: SqlStore, filled: str, another_url: str, tmp_path: Path
) -> None:
    before = content(filled)
    path = tmp_path / "store.zip"
    with store.begin() as work:
        work.pause("not yet", NOW)
        Database(filled).backup(path)
        work.commit()
    assert content(filled) != before
    Database(another_url).restore(path)
    assert content(another_url) == before


def test_a_file_that_is_there_is_left_alone_and_an_archive_is_its_owners_alone(archive: Path, filled: str) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    before = archive.read_bytes()
    with pytest.raises(Refused, match="is there already"):
        Database(filled).backup(archive)
    assert archive.read_bytes() == before
    assert [path.name for path in archive.parent.iterdir() if "part" in path.name] == []


def test_an_archive_goes_into_an_empty_store_alone(archive: Path, another_url: str) -> None:
    upgrade(another_url)
    table = metadata.tables["switches"]
    with connect(parse(another_url), NullPool).begin() as connection:
        connection.execute(table.insert(), {c.name: a_value(c, 0) for c in table.columns})
    before = content(another_url)
    with pytest.raises(Refused, match=r"holds rows already \(switches\)"):
        Database(another_url).restore(archive)
    assert content(another_url) == before


def test_tables_of_others_are_left_alone(archive: Path, another_url: str) -> None:
    upgrade(another_url)
    with connect(parse(another_url), NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (n INTEGER)")
    with pytest.raises(Refused, match="theirs"):
        Database(another_url).restore(archive)


def test_a_store_of_an_earlier_schema_comes_back_with_this_versions(
    store_url: str, another_url: str, tmp_path: Path
) -> None:
    """As it was written then: the tables of that schema, and its revision in the manifest."""
    upgrade(store_url)
    with connect(parse(store_url), NullPool).begin() as connection:
        table = metadata.tables["switches"]
        connection.execute(table.insert(), {c.name: a_value(c, 0) for c in table.columns})
    path = tmp_path / "new.zip"
    Database(store_url).backup(path)
    old = tmp_path / "old.zip"
    first = tmp_path / "first.db"
    with schema.migrating(parse(f"sqlite:///{first}")) as connection:
        schema.rebuild(connection, "0001")
    known = inspect(create_engine(f"sqlite:///{first}", poolclass=NullPool))
    columns = {name: {c["name"] for c in known.get_columns(name)} for name in known.get_table_names()}

    def of_then(entries: dict[str, bytes], told: dict[str, Any]) -> None:
        told["revision"] = "0001"
        told["tables"] = [t for t in told["tables"] if fits(entries, t["table"])]
        for name in [n for n in entries if n not in {f"tables/{t['table']}.arrows" for t in told["tables"]}]:
            del entries[name]

    def fits(entries: dict[str, bytes], table: str) -> bool:
        import pyarrow.ipc

        with pyarrow.ipc.open_stream(entries[f"tables/{table}.arrows"]) as stream:
            return set(stream.schema.names) == columns.get(table)

    rewrite(path, old, of_then)
    upgrade(another_url)  # an empty store that `init` has just made
    assert Database(another_url).restore(old).revision == "0001"
    assert revision(another_url) == schema.HEAD
    assert content(another_url)["switches"] == content(store_url)["switches"]
    assert schema.check(another_url) == []


# --- archives that are not what they should be ----------------------------------------------------


def rewrite(path: Path, to: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> None:
    with zipfile.ZipFile(path) as whole:
        entries = {name: whole.read(name) for name in whole.namelist() if name != MANIFEST}
        told = json.loads(whole.read(MANIFEST))
    change(entries, told)
    with zipfile.ZipFile(to, "w") as changed:
        for name, data in entries.items():
            changed.writestr(name, data)
        changed.writestr(MANIFEST, json.dumps(told))


def damaged(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    name = "tables/versions.arrows"
    entries[name] = entries[name][:-20] + bytes(20)


def beyond(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    entries["../../escaped"] = b"x"


def newer(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    told["revision"] = "9999"


def of_another_format(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    told["format"] = 2


def without_a_table_that_it_names(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    del entries["tables/versions.arrows"]


def with_a_table_that_nobody_knows(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    last = dict(told["tables"][-1])
    entries["tables/x; DROP TABLE versions.arrows"] = entries[f"tables/{last['table']}.arrows"]
    told["tables"].append(last | {"table": "x; DROP TABLE versions"})


def of_another_revision(entries: dict[str, bytes], told: dict[str, Any]) -> None:
    told["revision"] = "0003"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (damaged, "the rows of versions are not those that were written"),
        (beyond, "other files than its manifest.json names"),
        (newer, "newer version"),
        (of_another_format, "has the format 2"),
        (without_a_table_that_it_names, "other files than"),
        (with_a_table_that_nobody_knows, "knows no table x; DROP TABLE versions"),
        (of_another_revision, "archive was changed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_archive_is_refused_and_leaves_the_store_as_it_was(
    archive: Path, another_url: str, tmp_path: Path, change: Any, said: str
) -> None:
    upgrade(another_url)
    wrong = tmp_path / "wrong.zip"
    rewrite(archive, wrong, change)
    with pytest.raises(BadInput, match=said):
        Database(another_url).restore(wrong)
    assert all(rows == [] for rows in content(another_url).values())
    assert revision(another_url) == schema.HEAD
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("cut", [0, 100, -100], ids=["empty", "its head", "without its end"])
def test_half_a_file_is_no_archive(archive: Path, another_url: str, tmp_path: Path, cut: int) -> None:
    half = tmp_path / "half.zip"
    half.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(BadInput, match="no whole archive"):
        Database(another_url).restore(half)
    assert revision(another_url) is None


def test_a_disk_that_fills_up_leaves_no_archive(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    real = zipfile.ZipFile.writestr

    def fails(self: zipfile.ZipFile, *given: Any, **options: Any) -> None:
        real(self, *given, **options)
        with full.open("wb", buffering=0) as disk:
            disk.write(b"x")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fails)
    with pytest.raises(BadInput, match="No space left on device"):
        Database(filled).backup(tmp_path / "store.zip")
    assert not list(tmp_path.glob("*store.zip*"))
