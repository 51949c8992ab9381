"""The answer to a query as a source, from SQLite and PostgreSQL alike."""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import create_engine, make_url, text

from cancellations.bootstrap import open_source
from cancellations.errors import BadInput, ServiceDown
from cancellations.settings import load
from cancellations.sources.mapped import open_table

FIELDS = """\
[reservation]
reservation_id = "id"
hotel = "hotel"
booked_on = "booked"
arrival_on = "arrival"
nights = "nights"
adults = "adults"
price = "price"
[outcome]
status = { column = "state", map = { C = "canceled", "" = "" } }
"""
QUERY = "SELECT * FROM pms ORDER BY id"


def mapping(folder: Path, url: str, query: str = QUERY) -> Path:
    path = folder / "pms.toml"
    path.write_text(
        f'format = 1\nname = "pms"\n[source]\nurl = "{url}"\nquery = "{query}"\ntimezone = "Europe/Lisbon"\n' + FIELDS
    )
    return path


@pytest.fixture
def pms(store_url: str) -> str:
    """A hotel's own database with seven bookings, the last of them without a hotel."""
    url = make_url(store_url)
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True)
    engine = create_engine(url)
    booked = "timestamptz" if url.get_backend_name() == "postgresql" else "text"
    with engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE TABLE pms (id bigint, hotel text, booked {booked}, arrival date, nights integer,"
                " adults integer, price numeric(10, 2), state text)"
            )
        )
        connection.execute(
            text("INSERT INTO pms VALUES (:id, :hotel, :booked, :arrival, 3, 2, :price, :state)"),
            [
                {
                    "id": 2**53 + n,
                    "hotel": "Sea" if n < 7 else None,
                    "booked": datetime(2018, 7, n, 23, 30, tzinfo=UTC).isoformat(),
                    "arrival": date(2018, 8, n).isoformat(),
                    "price": None if n == 3 else str(Decimal("80.50")),
                    "state": "C" if n == 2 else None,
                }
                for n in range(1, 8)
            ],
        )
    engine.dispose()
    return store_url


def test_a_query_is_read_in_batches_with_its_types(pms: str, tmp_path: Path) -> None:
    source = open_table(mapping(tmp_path, pms), batch_rows=3)
    assert (source.name, source.fingerprint()) == ("pms", None)
    for _ in range(2):  # it can be read again
        batches = list(source.batches())
        assert [len(b.raw) for b in batches] == [3, 3, 1]
        reservations = pd.concat([b.reservations for b in batches if b.reservations is not None])
        assert reservations.index.tolist() == list(range(1, 8))
        assert reservations["reservation_id"].tolist() == [str(2**53 + n) for n in range(1, 8)]
        # Half past eleven in the evening UTC is the next day in Lisbon, in summer.
        assert reservations["booked_on"].tolist() == [pd.Timestamp(2018, 7, n + 1) for n in range(1, 8)]
        assert reservations["arrival_on"].tolist() == [pd.Timestamp(2018, 8, n) for n in range(1, 8)]
        assert reservations["price"].isna().tolist() == [n == 3 for n in range(1, 8)]
        assert pd.isna(reservations["hotel"][7])
        assert pd.concat([b.outcomes for b in batches])["status"].to_dict() == {2: "canceled"}
        assert all(b.problems.empty for b in batches)


def test_a_mapping_with_a_query_is_a_locator_and_its_url_may_come_from_the_environment(
    pms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mapping(tmp_path, "x")
    path.write_text(path.read_text().replace('url = "x"', 'url_env = "PMS_URL"'))
    with pytest.raises(BadInput, match="the variable PMS_URL is not set"):
        open_source(str(path), load())
    monkeypatch.setenv("PMS_URL", pms)
    assert sum(len(b.raw) for b in open_source(str(path), load(booked_until=date(2018, 7, 4))).batches()) == 3


def test_colons_and_percents_of_a_query_are_the_databases(pms: str, tmp_path: Path) -> None:
    query = "SELECT * FROM pms WHERE hotel LIKE 'S%' AND hotel <> ':id' AND hotel <> '%s' ORDER BY id;"
    assert sum(len(b.raw) for b in open_table(mapping(tmp_path, pms, query)).batches()) == 6


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELEC 1", "syntax error"),
        ("SELECT id, id FROM pms", "more than one column named 'id'"),
        ("SELECT id FROM pms", "lacks hotel, booked"),
        # Of PostgreSQL's cursors no DELETE can be one.
        ("DELETE FROM pms WHERE id = 0", "returns no table|syntax error"),
    ],
)
def test_a_query_that_cannot_be_used_is_told_in_the_databases_words(
    pms: str, tmp_path: Path, query: str, told: str
) -> None:
    with pytest.raises(BadInput, match=told) as error:
        open_table(mapping(tmp_path, pms, query))
    assert "pms.toml" in str(error.value)


def test_a_query_without_rows_is_a_day_without_bookings(pms: str, tmp_path: Path) -> None:
    assert list(open_table(mapping(tmp_path, pms, "SELECT * FROM pms WHERE id = 0")).batches()) == []


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        for url in (f"postgresql+psycopg://me:s3cret@{where}/pms", f"postgresql+psycopg://{where}/pms?password=s3cret"):
            with pytest.raises(ServiceDown, match=r"127\.0\.0\.1/pms cannot be reached") as error:
                open_table(mapping(tmp_path, url))
            assert "s3cret" not in str(error.value)
    for url in ("nosuch://me:s3cret@host/x", "me:s3cret"):
        with pytest.raises(BadInput, match="URL cannot be used") as wrong:
            open_table(mapping(tmp_path, url))
        assert "s3cret" not in str(wrong.value)
