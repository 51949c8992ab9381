"""Scores out: files, tables of somebody else's database, the morning's files and its one mail."""

from __future__ import annotations

import csv
import socket
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import URL, NullPool, create_engine, inspect, make_url, text

from cancellations import settings
from cancellations.bootstrap import App
from cancellations.domain import reservation
from cancellations.domain.promotion import Change
from cancellations.errors import BadInput, ServiceDown
from cancellations.mail.message import write
from cancellations.ports import Letter, VersionRecord
from cancellations.settings import Mail
from cancellations.store.exports import TableExports
from cancellations.usecases.outlook import nights_of
from deployments.mailbox import Folder

if TYPE_CHECKING:
    from command_line import Run
    from prefect.client.orchestration import SyncPrefectClient

pytest_plugins = ["command_line", "prefect_server"]

DAY = date(2024, 5, 1)
NOW = datetime(2024, 5, 1, 5, 30, tzinfo=UTC)
FORMULA = '=HYPERLINK("http://evil.example","x")'
# Id, arrival, nights, price, probability at booking.
OPEN = [
    ("a", "2024-05-01", 2, 100.0, 0.1),
    ("b", "2024-05-03", 3, 80.0, 0.5),
    (FORMULA, "2024-05-20", 7, 300.0, 0.9),
    ("-5", "2024-05-20", 1, None, 0.2),
    ('ü, "quoted"\nline', "2024-06-25", 1, 50.0, 0.3),
]


def reservations(rows: Sequence[tuple[str, str, int, float | None, float]], hotel: str = "City Hotel") -> pd.DataFrame:
    names = ["reservation_id", "arrival_on", "week_nights", "price", "probability"]
    known = {"hotel": hotel, "booked_on": "2024-04-01", "weekend_nights": 0, "adults": 2}
    given = pd.DataFrame(rows, columns=names).assign(**known)
    return reservation.coerce(given).assign(group_size=1.0)


@pytest.fixture
def app(home: Path) -> Iterator[App]:
    """Version 1 serves five open bookings; two more ended or have no score."""
    made = App(settings.load(home=home))
    with made.store.begin() as work:
        work.upsert_reservations(reservations(OPEN))
        work.upsert_reservations(reservations([("gone", "2024-05-02", 1, 90.0, 0.5)], "Resort"))
        work.upsert_reservations(reservations([("unscored", "2024-05-02", 1, 90.0, 0.5)]))
        ended = pd.DataFrame({"reservation_id": ["gone"], "status": ["canceled"], "known_on": [pd.Timestamp(DAY)]})
        work.record_outcomes(ended)
        probabilities = {row[0]: row[4] for row in OPEN} | {"gone": 0.5}
        given = pd.DataFrame(probabilities.items(), columns=["reservation_id", "probability"])
        work.add_predictions("1", given, DAY, NOW)
        work.add_version(VersionRecord("1", "r", "run", date(2024, 3, 1), "digest", {}), NOW)
        seen, by = work.standing(), {"reason": "a test", "by": "a test", "as_of": DAY, "now": NOW}
        work.change_standing(seen, champion="1", challenger=None, change=Change.FIRST, **by)  # type: ignore[arg-type]
        work.serve(DAY, NOW)
        work.commit()
    yield made
    made.store.close()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- files ----------------------------------------------------------------------------------------


def test_a_folder_gets_the_tables_and_the_picture_of_its_day(run: Run, app: App) -> None:
    told = run("scores", "export", "--to", "exports", "--as-of", str(DAY))
    assert told.code == 0, told.err
    assert "5 bookings as scores, 60 nights as nights, 4 bookings as riskiest" in told.out
    assert "1 open booking has no score yet" in told.out and "1 booking has no price" in told.out
    folder = Path("exports") / str(DAY)
    assert sorted(p.name for p in folder.iterdir()) == ["nights.csv", "outlook.png", "riskiest.csv", "scores.csv"]

    scores = rows_of(folder / "scores.csv")
    assert {(r["as_of"], r["version"], r["arm"]) for r in scores} == {(str(DAY), "1", "")}
    assert [float(r["probability"]) for r in scores] == [0.1, 0.5, 0.2, 0.9, 0.3]
    # Nothing has been cancelled in this store, so nothing is known of when it happens.
    assert [r["remaining"] for r in scores] == [r["probability"] for r in scores]
    nights = rows_of(folder / "nights.csv")
    assert [n["night"] for n in nights][:2] == ["2024-05-01", "2024-05-02"] and len(nights) == 60
    assert [n["on_books"] for n in nights][:6] == ["1", "1", "1", "1", "1", "0"]
    assert float(nights[2]["at_risk"]) == pytest.approx(40) and nights[19]["unpriced"] == "1"
    risky = rows_of(folder / "riskiest.csv")
    assert [r["rank"] for r in risky] == ["1", "2", "3", "4"]
    assert float(risky[0]["value_at_risk"]) == pytest.approx(0.9 * 7 * 300)
    assert (folder / "outlook.png").read_bytes().startswith(b"\x89PNG")


def test_an_id_that_looks_like_a_formula_is_harmless_in_csv_and_exact_in_parquet(run: Run, app: App) -> None:
    for form in ("csv", "parquet"):
        assert run("scores", "export", "--to", f"scores.{form}", "--as-of", str(DAY)).code == 0
    ids = {r["reservation_id"] for r in rows_of(Path("scores.csv"))}
    assert ids == {"a", "b", f"'{FORMULA}", "-5", 'ü, "quoted"\nline'}
    exact = pd.read_parquet("scores.parquet")
    assert set(exact["reservation_id"]) == {row[0] for row in OPEN}
    assert exact["as_of"].tolist() == [DAY] * 5 and exact["probability"].dtype == "float64"


@pytest.mark.parametrize("name", ["=1+1", "+x", "-1+1", "@SUM", "\tx", "\rx", "-", "+"])
def test_what_begins_like_a_formula_gets_an_apostrophe(tmp_path: Path, name: str) -> None:
    TableExports().to_file(pd.DataFrame({"name": [name]}), tmp_path / "out.csv")
    assert rows_of(tmp_path / "out.csv")[0]["name"] == f"'{name}"


@pytest.mark.parametrize("name", ["-5", "+49", "-0.5", "a=b", "12-3", "", "ordinary"])
def test_plain_numbers_and_other_texts_stay_as_they_are(tmp_path: Path, name: str) -> None:
    TableExports().to_file(pd.DataFrame({"name": [name], "n": [-1]}), tmp_path / "out.csv")
    assert rows_of(tmp_path / "out.csv") == [{"name": name, "n": "-1"}]


def test_the_same_day_again_replaces_itself_and_other_days_stay(run: Run, app: App) -> None:
    export = ("scores", "export", "--to", "exports", "--as-of")
    assert run(*export, str(DAY)).code == run(*export, "2024-05-02").code == 0
    before = {path: path.read_bytes() for path in Path("exports").rglob("*.*") if path.is_file()}
    assert run(*export, str(DAY)).code == 0
    assert {path: path.read_bytes() for path in Path("exports").rglob("*.*") if path.is_file()} == before
    # A narrower export of the day leaves no table of the wider one that might be older.
    assert run("scores", "export", "nights", "--to", "exports", "--as-of", str(DAY)).code == 0
    assert sorted(p.name for p in (Path("exports") / str(DAY)).iterdir()) == ["nights.csv", "outlook.png"]


def test_a_folder_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, exports = pd.DataFrame({"n": [1]}), TableExports()
    exports.to_folder({"scores": table, "nights": table}, {}, tmp_path / "day")

    def full(self: pd.DataFrame, path: Path, **_: object) -> None:
        if path.name == "nights.csv":
            raise OSError(28, "No space left on device")
        path.write_text("half")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(BadInput, match="cannot be written: No space left on device"):
        exports.to_folder({"scores": table, "nights": table}, {}, tmp_path / "day")
    assert (tmp_path / "day" / "scores.csv").read_text() == '"n"\n1\n'
    assert [path.name for path in tmp_path.iterdir()] == ["day"], "the half takes no room"


def test_a_folder_that_a_killed_run_had_put_aside_comes_back(tmp_path: Path) -> None:
    table, exports = pd.DataFrame({"n": [1]}), TableExports()
    exports.to_folder({"scores": table}, {}, tmp_path / "day")
    (tmp_path / "day").rename(tmp_path / ".day.old")
    (tmp_path / ".day.part").mkdir()
    exports.to_folder({"scores": table.assign(n=2)}, {}, tmp_path / "day")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["day"]
    assert (tmp_path / "day" / "scores.csv").read_text() == '"n"\n2\n'


def test_a_folder_that_holds_something_else_is_left_alone(run: Run, app: App) -> None:
    folder = Path("exports") / str(DAY)
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text("mine")
    ended = run("scores", "export", "--to", "exports", "--as-of", str(DAY))
    assert ended.code == 2 and "holds letter.txt, which is no export" in ended.sentence()
    assert [p.name for p in folder.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say where to, in one way"),
        (["--to", "x.csv", "--url", "sqlite:///x.db"], "say where to, in one way"),
        (["everything", "--to", "out"], "no export 'everything'; there are scores, nights, riskiest and all"),
        (["all", "--to", "x.csv"], "x.csv holds one table"),
        (["--to", "x.xlsx"], "x.xlsx is neither a .csv nor a .parquet file nor a folder"),
        (["--to", "gone/x.csv"], "gone/x.csv cannot be written; name a file, in a folder that exists"),
        (["--url-env", "NOWHERE"], "the environment variable NOWHERE of --url-env is empty"),
        (["--url", "sqlite://"], "in memory is gone with its connection"),
        (["--url", "sqlite:///x.db", "--table", "a; DROP TABLE b"], "is no name for a table"),
        (["--url", "nonsense"], "the database's address cannot be read"),
        (["--url", "oracle://u:secret@h/d"], "there is no driver for oracle://u:***@h/d here"),
        (["--url", "sqlite:////gone/away/x.db"], "unable to open database file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_exported_is_a_sentence(run: Run, app: App, arguments: list[str], told: str) -> None:
    ended = run("scores", "export", *arguments, "--as-of", str(DAY))
    assert ended.code == 2
    assert told in ended.sentence() and "secret" not in ended.err
    assert list(Path().glob("*.csv")) == []


def test_options_before_the_word_are_refused_instead_of_ignored(run: Run, app: App) -> None:
    ended = run("scores", "--as-of", str(DAY), "export", "--to", "x.csv")
    assert ended.code == 2 and "options belong behind the word: cancellations scores export" in ended.sentence()


# --- tables of a database -------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A database that is not ours, with a password in its address where it can have one."""
    if request.param == "sqlite":
        yield make_url(f"sqlite:///{tmp_path / 'theirs.db'}")
        return
    server: URL = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name}")
    yield server.set(database=name, password=server.password or "not-to-be-told")
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url: URL, *statements: str) -> list[Any]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        done = [connection.execute(text(statement)) for statement in statements]
        return list(done[-1].all()) if done[-1].returns_rows else []


def test_tables_of_a_database_are_made_with_types_then_filled_anew(
    run: Run, app: App, theirs: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTEL_DATABASE", theirs.render_as_string(hide_password=False))
    export = ("scores", "export", "--url-env", "HOTEL_DATABASE", "--table", "forecast", "--as-of", str(DAY))
    assert run(*export).code == 0
    # A view and a row of theirs: the view must live on, the row is replaced.
    _execute(theirs, "CREATE VIEW seen AS SELECT * FROM forecast_scores", "DELETE FROM forecast_nights")
    told = run(*export, "--json")
    assert told.code == 0 and told.json["rows"] == {"scores": 5, "nights": 60, "riskiest": 4}
    assert theirs.password is None or theirs.password not in told.out + told.err
    assert "forecast_scores" in told.json["to"][0]

    engine = create_engine(theirs, poolclass=NullPool)
    kinds = {c["name"]: str(c["type"]).split("(")[0] for c in inspect(engine).get_columns("forecast_scores")}
    assert (kinds["as_of"], kinds["arrival_on"], kinds["nights"]) == ("DATE", "DATE", "INTEGER")
    assert kinds["probability"].startswith("DOUBLE") and kinds["reservation_id"] == "TEXT"
    counts = [_execute(theirs, f"SELECT count(*) FROM forecast_{n}")[0][0] for n in ("scores", "nights", "riskiest")]
    assert counts == [5, 60, 4] and len(_execute(theirs, "SELECT * FROM seen")) == 5
    [row] = _execute(theirs, "SELECT arm, version, probability FROM forecast_scores WHERE probability > 0.8")
    assert tuple(row) == (None, "1", 0.9)
    [row] = _execute(theirs, "SELECT reservation_id FROM forecast_scores WHERE probability > 0.8")
    assert row[0] == FORMULA  # a database runs no formulas


def test_exports_at_once_leave_the_rows_of_one(theirs: URL) -> None:
    address = theirs.render_as_string(hide_password=False)
    tables = {"n": pd.DataFrame({"line": range(2_000)})}
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: TableExports().to_database(tables, address), range(8)))
    assert len(told) == 8
    assert [tuple(row) for row in _execute(theirs, "SELECT count(*), count(DISTINCT line) FROM n")] == [(2_000, 2_000)]


def test_one_table_has_the_name_that_was_given(run: Run, app: App, theirs: URL) -> None:
    address = theirs.render_as_string(hide_password=False)
    assert run("scores", "export", "nights", "--url", address, "--table", "n", "--as-of", str(DAY)).code == 0
    assert inspect(create_engine(theirs, poolclass=NullPool)).get_table_names() == ["n"]


def test_a_table_of_theirs_is_never_touched_and_what_came_before_is_taken_back(run: Run, app: App, theirs: URL) -> None:
    _execute(theirs, "CREATE TABLE f_riskiest (guest TEXT)", "INSERT INTO f_riskiest VALUES ('Ada')")
    address = theirs.render_as_string(hide_password=False)
    ended = run("scores", "export", "--url", address, "--table", "f", "--as-of", str(DAY))
    assert ended.code == 2 and "the table f_riskiest of" in ended.sentence() and "other columns" in ended.err
    assert _execute(theirs, "SELECT guest FROM f_riskiest")[0][0] == "Ada"
    assert inspect(create_engine(theirs, poolclass=NullPool)).get_table_names() == ["f_riskiest"]


def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    with pytest.raises(ServiceDown, match="Nothing was changed") as told:
        TableExports().to_database(
            {"n": pd.DataFrame({"n": [1]})}, "postgresql://ada:secret@127.0.0.1:1/hotel?connect_timeout=2"
        )
    assert "secret" not in str(told.value) and "ada:***@127.0.0.1:1" in str(told.value)


# --- looking ahead --------------------------------------------------------------------------------


def test_the_outlook_is_shown_night_by_night(run: Run, app: App) -> None:
    told = run("scores", "outlook", "--as-of", str(DAY))
    assert told.code == 0
    assert "2024-05-03" in told.out and "next 7" in told.out and "riskiest by value" in told.out
    assert "1,890 of 2,100 at 90%, City Hotel, arrives 2024-05-20, 7 nights: =HYPERLINK" in told.out
    found = run("scores", "outlook", "--as-of", str(DAY), "--json").json
    assert (found["version"], found["open"], found["unscored"], len(found["nights"])) == ("1", 5, 1, 60)
    assert found["riskiest"][0]["reservation_id"] == FORMULA


def test_cancellations_known_of_others_make_survivors_safer(run: Run, app: App) -> None:
    past = [(f"p{n}", "2024-04-28", 1, 90.0, 0.5) for n in range(400)]
    ended = {"reservation_id": [p[0] for p in past], "status": "canceled", "known_on": pd.Timestamp("2024-04-02")}
    with app.store.begin() as work:
        work.upsert_reservations(reservations(past))
        work.record_outcomes(pd.DataFrame(ended))
        work.commit()
    seen = app.outlook(DAY)
    assert seen.learned_from == 400
    assert (seen.bookings["remaining"] < 0.2 * seen.bookings["probability"]).all()


def test_without_a_champion_nothing_is_exported_and_that_is_said(run: Run, home: Path) -> None:
    for command in (("export", "--to", "x.csv"), ("outlook",), ("outlook", "--publish")):
        ended = run("scores", *command, "--as-of", str(DAY))
        assert ended.code == 1 and "there is no champion yet, so no booking has a score" in ended.sentence()
    assert list(Path().iterdir()) == []


def test_without_an_open_booking_tables_are_empty_and_that_is_said(run: Run, app: App) -> None:
    late = "2030-01-01"
    told = run("scores", "export", "--to", "exports", "--as-of", late)
    assert told.code == 0 and f"no booking that is open on {late} is served a score" in told.out
    assert [len(rows_of(path)) for path in sorted((Path("exports") / late).glob("*.csv"))] == [0, 0, 0]
    assert f"no booking that is open on {late}" in run("scores", "outlook", "--as-of", late).out
    app.settings.outlook.readers.append("ada@hotel.example")
    published = app.publish_outlook(date(2030, 1, 1))
    assert (published.picture, published.mailed) == (None, False)


# --- the morning mail -----------------------------------------------------------------------------


def waiting(app: App) -> list[Any]:
    with app.store.begin() as work:
        found = [entry.message for entry in work.pending_messages()]
    return [m for m in found if m.topic == "cancellations.outlook.published"]


def test_a_morning_leaves_its_files_and_one_mail_to_its_readers_however_often_it_is_told(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.settings.outlook.readers.extend(["ada@hotel.example", "Bo <bo@hotel.example>"])
    first = app.publish_outlook(DAY)
    assert {path.name for path in first.files} == {"scores.csv", "nights.csv", "riskiest.csv", "outlook.png"}
    assert all(path.is_file() and path.parent == app.settings.home / "outlook" / str(DAY) for path in first.files)
    with app.store.begin() as work:  # the world moves on, the morning's mail does not
        work.record_outcomes(
            pd.DataFrame({"reservation_id": ["a"], "status": ["canceled"], "known_on": [pd.Timestamp(DAY)]})
        )
        work.commit()
    app.publish_outlook(DAY)
    assert len(waiting(app)) == 1
    app.publish_outlook(date(2024, 5, 2))
    assert len(waiting(app)) == 2


def test_without_readers_there_are_files_and_no_mail(app: App) -> None:
    assert len(app.publish_outlook(DAY).files) == 4
    assert waiting(app) == []


def test_the_mail_says_what_matters_in_its_subject_and_both_parts(app: App) -> None:
    app.settings.outlook.readers.append("ada@hotel.example")
    app.publish_outlook(DAY)
    [message] = waiting(app)
    picture = app.pictures.outlook(DAY, nights_of(message.payload["nights"]), "€")
    mail = write(Letter(message, picture=picture), Mail(owners=["owner@hotel.example"]), "", NOW)
    mail = message_from_bytes(mail.as_bytes(), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    # Two nights at 0.1, three at 0.5.
    assert mail["Subject"] == "€ 140 at risk: 2 of 5 room nights expected to cancel in the next 7 nights"
    assert mail["To"] == "ada@hotel.example"
    plain, html = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))  # type: ignore[union-attr]
    assert "THE NEXT 7 NIGHTS" in plain and "THE NEXT 14 NIGHTS" in plain and "THE RISKIEST BOOKINGS" in plain
    assert "1,890 of 2,100 at 90%: =HYPERLINK(" in plain and "readers of the morning outlook" in plain
    assert "no guest who is in the house. 1 open booking has no score yet" in " ".join(plain.split())
    assert "1,890" in html and "=HYPERLINK(&#34;http://evil.example&#34;" in html and "<a href" not in html
    [image] = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert image.get_filename() == "outlook.png" and f"cid:{image['Content-ID'].strip('<>')}" in html


def further_hotels(app: App, *hotels: str) -> None:
    """One open booking of 100 for two nights in each, served 0.5."""
    with app.store.begin() as work:
        for number, hotel in enumerate(hotels):
            rows = reservations([(f"of {hotel}", "2024-05-02", 2, 100.0 + number, 0.5)], hotel)
            work.upsert_reservations(rows)
            work.add_predictions("1", rows[["reservation_id"]].assign(probability=0.5), DAY, NOW)
        work.serve(DAY, NOW)
        work.commit()


def mailed(app: App) -> EmailMessage:
    app.settings.outlook.readers.append("ada@hotel.example")
    app.publish_outlook(DAY)
    [message] = waiting(app)
    return write(Letter(message), Mail(owners=["owner@hotel.example"]), "", NOW)


def plain_part(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def test_a_hotel_may_be_called_all(app: App) -> None:
    further_hotels(app, "all")
    mail = mailed(app)
    assert "3 of 7 room nights" in str(mail["Subject"])
    lines = plain_part(mail).splitlines()
    assert [sum(line.startswith(f"  {name} ") for line in lines) for name in ("all", "All hotels")] == [2, 2]


def test_of_many_hotels_the_largest_are_shown_and_the_sums_count_all(run: Run, app: App) -> None:
    further_hotels(app, *(f"Hotel {number}" for number in range(9)))
    told = run("scores", "outlook", "--as-of", str(DAY))
    lines = told.out.splitlines()
    assert [sum(line.startswith(name) for line in lines) for name in ("City Hotel", "Hotel 0")] == [16, 16]
    assert {line[:7] for line in lines if line.startswith("Hotel ")} == {"Hotel 0", "Hotel 1", "Hotel 2"}
    [week] = [line for line in lines if line.startswith("all 10 hotels") and "next 7 " in line]
    assert week.split()[5] == "23"
    assert "the 4 hotels with the most on the books" in told.out and "scores export" in told.out
    plain = plain_part(mailed(app))
    assert plain.count("All 10 hotels") == 2 and plain.count("City Hotel  ") == 2
    [message] = waiting(app)
    assert nights_of(message.payload["nights"])["hotel"].nunique() == 4
    names = [[row["hotel"] for row in message.payload["weeks"] if row["days"] == days][1:] for days in (7, 14)]
    assert names[0] == names[1] and len(names[0]) == 4


def test_a_name_of_two_lines_stands_on_one(run: Run, app: App) -> None:
    further_hotels(app, "Two\nLines Inn")
    told = run("scores", "outlook", "--as-of", str(DAY)).out.splitlines()
    assert sum(line.startswith("Two Lines Inn ") for line in told) == 16
    assert not [line for line in told if line.startswith(("Lines", "line"))]
    assert not [line for line in run("scores", "show").out.splitlines() if line.startswith("line")]


def test_the_mail_leaves_by_the_outbox_with_its_picture_and_to_the_readers_alone(app: App, tmp_path: Path) -> None:
    app.settings.outlook.readers.append("ada@hotel.example")
    app.publish_outlook(DAY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Controller(Folder(tmp_path / "mails"), hostname="127.0.0.1", port=port, server_hostname="localhost")
    server.start()
    try:
        app.settings.mail.port = port
        assert (app.deliver().failed, app.deliver().sent) == ((), 0)
    finally:
        server.stop()
    [path] = (tmp_path / "mails").glob("*.eml")
    mail = message_from_bytes(path.read_bytes(), policy=policy.default)
    assert mail["To"] == "ada@hotel.example" and mail["X-Cancellations-Topic"] == "cancellations.outlook.published"
    assert [p.get_filename() for p in mail.walk() if p.get_content_type() == "image/png"] == ["outlook.png"]


def test_the_deployment_and_a_person_publish_the_same(run: Run, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANCELLATIONS_OUTLOOK__READERS", '["ada@hotel.example"]')
    told = run("scores", "outlook", "--publish", "--as-of", str(DAY))
    assert told.code == 0 and f"outlook/{DAY}/nights.csv" in told.out
    assert "not sent yet: cancellations.outlook.published by mail" in told.out  # no server answers here
    assert len(waiting(app)) == 1


def test_the_flow_shows_tables_and_picture_and_writes_what_a_person_would(app: App, prefect: SyncPrefectClient) -> None:
    from flows import application
    from flows.outlook import outlook

    application.application.cache_clear()
    outlook(as_of=DAY)
    shown = {artifact.key: str(artifact.data) for artifact in prefect.read_artifacts()}
    application.application.cache_clear()
    assert "| City Hotel | next 7 | 5 | 1.7 (0 to 5) | 140 (0 to 395) |" in shown["outlook"]
    assert "1 open booking has no score yet" in shown["outlook"]
    assert shown["outlook-picture"].startswith("data:image/png;base64,")
    assert len(list((app.settings.home / "outlook" / str(DAY)).iterdir())) == 4
