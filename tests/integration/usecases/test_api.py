"""The API on a real store and registry: what it answers, follows, records and refuses."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pandas as pd
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from sqlalchemy import URL, NullPool, create_engine, event, text
from starlette.testclient import TestClient
from test_serve import TODAY, made_on
from world import SECOND, World

from cancellations import settings
from cancellations.bootstrap import App
from cancellations.domain.comparison import arm
from cancellations.domain.promotion import Change
from cancellations.errors import BadInput
from cancellations.settings import Api as ApiSettings
from deployments.api.app import Api
from deployments.api.gate import tokens_of
from deployments.api.reference import reference
from deployments.api.reservations import EXAMPLE

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
TOKEN, OTHER = "a-token-of-the-test-suite", "another-token-for-the-pms"
# Whatever is waited for comes within a second or two; a busy machine takes longer.
PATIENCE = 60.0


@contextmanager
def served(world: World, **knobs: Any) -> Iterator[TestClient]:
    """The API of a world, running; `client.api` is the application."""
    knobs = {"poll_seconds": 0.05, "recorder": "thread", **knobs}
    known = settings.load(
        home=Path("unused"),
        database_url=world.store._url.render_as_string(hide_password=False),
        mlflow_tracking_uri=world.registry._uri,
        as_of=TODAY,
        api=ApiSettings(**knobs),
    )
    api = Api(App(known), tokens_of(known.api))
    with TestClient(api, base_url="http://localhost", raise_server_exceptions=False) as client:
        client.api = api  # type: ignore[attr-defined]
        yield client


def told(count: int = 3, **more: Any) -> dict[str, Any]:
    """A request about bookings of today that nobody has loaded."""
    rows = []
    for row in made_on(TODAY).head(count).to_dict("records"):
        row = {k: str(v.date()) if isinstance(v, pd.Timestamp) else v for k, v in row.items()}
        rows.append({k: v for k, v in row.items() if not pd.isna(v)})
    return {"reservations": rows, **more}


def until(client: TestClient, path: str, holds: Callable[[Any], bool]) -> Any:
    """What a path tells as soon as it is what is waited for."""
    deadline = time.monotonic() + PATIENCE
    while not holds(found := client.get(path).json()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def measure(client: TestClient, name: str) -> float:
    found = re.findall(rf"^cancellations_{name}(?:{{.*}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def test_one_and_many_are_answered_with_reasons_on_request_and_recorded_when_it_stops(trained: World) -> None:
    with served(trained) as client:
        one = client.post("/predict", json=told(1), headers={"X-Request-ID": "order-7"})
        assert one.status_code == 200 and one.headers["x-request-id"] == "order-7"
        assert one.json()["request_id"] == "order-7"
        [prediction] = one.json()["predictions"]
        assert prediction.pop("probability") == pytest.approx(0.5, abs=0.5)
        reservation_id = told(1)["reservations"][0]["reservation_id"]
        assert prediction == {
            "reservation_id": reservation_id,
            "version": "1",
            "arm": None,
            "hold_out": False,
            "stored": False,
            "recorded": True,
        }
        many = client.post("/predict", json=told(20, reasons=2)).json()
        assert [p["reservation_id"] for p in many["predictions"]] == [
            r["reservation_id"] for r in told(20)["reservations"]
        ]
        assert all(1 <= len(p["reasons"]) <= 2 for p in many["predictions"])
        assert {"feature", "value", "usual", "effect"} == set(many["predictions"][0]["reasons"][0])
    recorded = trained.predictions("1")
    for prediction in many["predictions"]:
        assert recorded[prediction["reservation_id"]] == prediction["probability"]


def test_who_answers_and_why_is_told_and_measured(challenged: World) -> None:
    with served(challenged) as client:
        assert client.get("/health").json() == {"status": "ok"}
        ready = client.get("/ready")
        assert ready.status_code == 200
        assert ready.json() == {
            "ready": True,
            "champion": "1",
            "rival": "2",
            "epoch": 2,
            "problem": None,
            "slow": None,
        }
        model = client.get("/model").json()
        assert (model["version"], model["serving"], model["challenger"], model["change"]) == (
            "1",
            "1",
            "2",
            "first champion",
        )
        assert "trial of challenger 2" in model["trial"] and model["reason"] and model["metrics"]["backtest_log_loss"]
        answers = client.post("/predict", json=told(40)).json()["predictions"]
        trial = challenged.open_trial()
        assert trial is not None
        for answer in answers:
            assert answer["arm"] == arm(trial.trial_id, answer["reservation_id"], trial.serve_share)
            assert answer["version"] == {"champion": "1", "rival": "2"}[answer["arm"]]
        assert measure(client, "predictions_total") == 40 and measure(client, "ready") == 1
        assert measure(client, "epoch") == 2 and measure(client, "slow") == 0
        assert 'cancellations_serving{role="rival",version="2"} 1.0' in client.get("/metrics").text


def test_a_promotion_and_a_rollback_are_followed_while_it_serves(challenged: World) -> None:
    with served(challenged) as client:
        assert {p["version"] for p in client.post("/predict", json=told(40)).json()["predictions"]} == {"1", "2"}
        challenged.promote("2", SECOND)
        until(client, "/ready", lambda found: found["champion"] == "2")
        again = client.post("/predict", json=told(40)).json()["predictions"]
        assert {(p["version"], p["arm"]) for p in again} == {("2", None)}
        challenged.roll_back(SECOND)
        until(client, "/ready", lambda found: found["champion"] == "1")
        assert {p["version"] for p in client.post("/predict", json=told(5)).json()["predictions"]} == {"1"}
    # Once for each version that answered.
    ids = [r["reservation_id"] for r in told(40)["reservations"]]
    assert set(ids) <= set(challenged.predictions("2").index)


def test_a_champion_that_cannot_be_loaded_is_never_served_and_the_last_good_one_stays(trained: World) -> None:
    with served(trained) as client:
        with trained.store.begin() as work:
            seen, record = work.standing(), work.version("1")
            assert record is not None
            values = vars(record) | {"version": "9", "request_id": "nine"}
            work.add_version(type(record)(**values), trained.clock())
            gone = work.change_standing(
                seen,
                champion="9",
                challenger=None,
                change=Change.PROMOTED,
                reason="by hand",
                by="ada",
                as_of=SECOND,
                now=trained.clock(),
            )
            work.commit()
        ready = until(client, "/ready", lambda found: found["problem"] is not None)
        assert ready["ready"] and ready["champion"] == "1" and "version 9" in ready["problem"]
        assert measure(client, "behind") == 1 and measure(client, "ready") == 1
        assert client.post("/predict", json=told(3)).json()["predictions"][0]["version"] == "1"
        with trained.store.begin() as work:
            work.change_standing(
                gone,
                champion="1",
                challenger=None,
                change=Change.ROLLED_BACK,
                reason="mended",
                by="ada",
                as_of=SECOND,
                now=trained.clock(),
            )
            work.commit()
        until(client, "/ready", lambda found: found["problem"] is None)
        assert measure(client, "behind") == 0


def test_without_a_champion_it_runs_refuses_and_answers_when_there_is_one(loaded: World) -> None:
    with served(loaded) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        refused = client.post("/predict", json=told(1))
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert "there is no champion yet" in refused.json()["error"]
        assert client.get("/model").status_code == 503
        loaded.retrain(loaded.request(SECOND - timedelta(days=14)))
        until(client, "/ready", lambda found: found["ready"])
        assert client.post("/predict", json=told(1)).status_code == 200


def test_a_full_queue_refuses_and_asks_for_patience(trained: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(trained, unrecorded=10) as client:
        service = client.api.service  # type: ignore[attr-defined]
        right, stopped = service.app.__class__.record, True

        def record(app: App, notes: Any) -> Any:
            if stopped:
                raise settings_down()
            return right(app, notes)

        monkeypatch.setattr(App, "record", record)
        assert client.post("/predict", json=told(8)).status_code == 200
        refused = client.post("/predict", json=told(9, reasons=0))
        assert refused.status_code == 503 and "answers wait to be recorded" in refused.json()["error"]
        assert refused.headers["retry-after"] == "1"
        # What is not recorded needs no place.
        assert client.post("/predict", json=told(9, record=False)).status_code == 200
        assert measure(client, "unrecorded") == 8
        stopped = False
        deadline = time.monotonic() + PATIENCE
        while measure(client, "unrecorded"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert measure(client, "recorded_total") == 8
        assert client.post("/predict", json=told(9)).status_code == 200


FILL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON features EXECUTE FUNCTION full_disk()
"""


@contextmanager
def full_disk(world: World, client: TestClient) -> Iterator[None]:
    """The server's store finds no room for another page; PostgreSQL says so by a trigger, SQLite by its own limit."""
    engine = client.api.service.app.store._engine  # type: ignore[attr-defined]
    if engine.dialect.name == "sqlite":

        def allow(pages: int, connection: Any) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}")

        def confine(connection: Any, *_: Any) -> None:
            allow(1, connection)

        def free(connection: Any, *_: Any) -> None:
            allow(2**30, connection)

        event.listen(engine, "checkout", confine)
        yield
        event.remove(engine, "checkout", confine)
        event.listen(engine, "checkout", free)
        return
    with world.store._engine.begin() as connection:
        connection.exec_driver_sql(FILL)
    yield
    with world.store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER full_disk ON features")


def test_a_full_disk_delays_what_is_recorded_and_loses_none_of_it(serving: World) -> None:
    with served(serving, unrecorded=50) as client:
        with full_disk(serving, client):
            assert client.post("/predict", json=told(40)).status_code == 200
            refused = client.post("/predict", json=told(41))
            assert refused.status_code == 503 and "answers wait to be recorded" in refused.json()["error"]
            assert refused.headers["retry-after"] == "1"
            # What is not recorded is answered all the same, and nobody takes the server out of service.
            assert client.post("/predict", json=told(41, record=False)).status_code == 200
            assert client.get("/ready").json()["ready"]
            assert measure(client, "unrecorded") == 40
        deadline = time.monotonic() + PATIENCE
        while measure(client, "unrecorded"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert measure(client, "recorded_total") == 40
    assert len(serving.predictions("1")) == 40


def test_whoever_comes_while_answers_are_written_waits_for_room(
    trained: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, right = threading.Event(), App.record

    def record(app: App, notes: Any) -> Any:
        assert go.wait(PATIENCE)
        return right(app, notes)

    monkeypatch.setattr(App, "record", record)
    with served(trained, unrecorded=10) as client:
        service = client.api.service  # type: ignore[attr-defined]
        wait = service._room_for

        async def room_for(rows: int) -> None:
            go.set()
            await wait(rows)

        monkeypatch.setattr(service, "_room_for", room_for)
        assert client.post("/predict", json=told(8)).status_code == 200
        assert client.post("/predict", json=told(9)).status_code == 200 and go.is_set()
    assert len(trained.predictions("1")) == 9


def settings_down() -> Exception:
    from cancellations.errors import ServiceDown

    return ServiceDown("the database is being moved")


def test_a_database_that_goes_away_makes_it_not_ready_and_comes_back_without_a_restart(
    request: pytest.FixtureRequest, serving: World, store_url: str
) -> None:
    if not store_url.startswith("postgresql"):
        pytest.skip("a file does not go away")
    server: URL = request.getfixturevalue("postgres")
    name = serving.store._url.database
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def allow(connections: bool) -> None:
        with engine.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {connections}"))
            if not connections:
                terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
                connection.execute(text(terminate), {"name": name})

    with served(serving) as client:
        assert client.post("/predict", json=told(2)).status_code == 200
        allow(False)
        try:
            down = until(client, "/ready", lambda found: not found["ready"])
            assert "PostgreSQL" in down["problem"] and down["champion"] == "1"
            refused = client.post("/predict", json=told(5))
            assert refused.status_code == 503 and "retry-after" in refused.headers
            assert client.get("/health").status_code == 200
        finally:
            allow(True)
        until(client, "/ready", lambda found: found["ready"])
        assert client.post("/predict", json=told(5)).status_code == 200
    assert len(serving.predictions("1")) == 5


# --- who may come in, and with what ------------------------------------------------------------------


@pytest.fixture
def guarded(trained: World, tmp_path: Path) -> Iterator[TestClient]:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# of the hotel's systems\n\npms {OTHER}\n")
    with served(trained, token=TOKEN, tokens_file=tokens, body_kib=64) as client:
        yield client


def test_without_the_right_token_nobody_comes_in(guarded: TestClient) -> None:
    wrong = [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN]
    for path in ("/predict", "/model", "/metrics", "/openapi.json", "/docs", "/admin", "/"):
        method = "POST" if path == "/predict" else "GET"
        for shown in wrong:
            headers = {} if shown is None else {"Authorization": shown}
            refused = guarded.request(method, path, headers=headers, json=told(1))
            assert refused.status_code == 401, (path, shown)
            assert refused.headers["www-authenticate"] == "Bearer"
            assert TOKEN[:-1] not in refused.text
        right = guarded.request(method, path, headers={"Authorization": f"bearer  {OTHER}"}, json=told(1))
        assert right.status_code in (200, 404), path


def test_probes_need_no_token_and_tell_those_without_one_no_more_than_yes_or_no(guarded: TestClient) -> None:
    assert guarded.get("/health").status_code == 200
    bare = guarded.get("/ready").json()
    assert bare["ready"] is True and {k for k, v in bare.items() if v is not None} == {"ready"}
    assert guarded.get("/ready", headers={"Authorization": f"Bearer {TOKEN}"}).json()["champion"] == "1"


def test_without_tokens_only_this_machine_is_answered(trained: World) -> None:
    with served(trained) as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
            assert client.get("/model", headers={"Host": host}).status_code == 421
        assert client.get("/model", headers={"Host": "127.0.0.1:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("line", "told_"),
    [("pms short", "line 1"), ("", "holds no token"), (f"{OTHER}", "line 1"), (None, "cannot be read")],
)
def test_a_file_of_tokens_that_cannot_be_used_is_told(tmp_path: Path, line: str | None, told_: str) -> None:
    path = tmp_path / "tokens"
    if line is not None:
        path.write_text(line)
    with pytest.raises(BadInput, match=told_) as problem:
        tokens_of(ApiSettings(tokens_file=path))
    assert OTHER not in str(problem.value) and str(path) in str(problem.value)


BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = BEARER | {"Content-Type": "application/json"}


def attacks() -> Iterator[tuple[str, str, str, dict[str, str], bytes, int]]:
    body = json.dumps({"reservations": [EXAMPLE | {"booked_on": "2016-07-20"}]}).encode()
    yield "huge body", "POST", "/predict", JSON, b"x" * 65_537, 413
    yield "deep JSON", "POST", "/predict", JSON, b"[" * 60_000, 422
    yield "deep object", "POST", "/predict", JSON, b'{"a":' * 12_000, 422
    yield "text", "POST", "/predict", BEARER | {"Content-Type": "text/plain"}, body, 415
    yield "form", "POST", "/predict", BEARER | {"Content-Type": "application/x-www-form-urlencoded"}, body, 415
    yield "no type", "POST", "/predict", BEARER, body, 415
    yield "JSON in another charset", "POST", "/predict", JSON, body.decode().encode("utf-16"), 422
    yield "NaN", "POST", "/predict", JSON, body.replace(b"104.5", b"NaN"), 422
    yield "infinity", "POST", "/predict", JSON, body.replace(b"104.5", b"Infinity"), 422
    yield "1e999", "POST", "/predict", JSON, body.replace(b"104.5", b"1e999"), 422
    yield "a large integer", "POST", "/predict", JSON, body.replace(b"104.5", b"9" * 5_000), 422
    yield "a long text", "POST", "/predict", JSON, body.replace(b"City Hotel", b"x" * 60_000), 422
    yield "a NUL", "POST", "/predict", JSON, body.replace(b"City Hotel", b"a\\u0000b"), 422
    yield "a lone surrogate", "POST", "/predict", JSON, body.replace(b"City Hotel", b"\\udfff"), 422
    yield "SQL", "POST", "/predict", JSON, body.replace(b"City Hotel", b"x'; DROP TABLE reservations; --"), 200
    yield "SQL in an id", "POST", "/predict", JSON, body.replace(b"2016-07-01-0042", b"' OR '1'='1"), 200
    yield "a path in an id", "POST", "/predict", JSON, body.replace(b"2016-07-01-0042", b"../../etc/passwd"), 200
    yield "markup", "POST", "/predict", JSON, body.replace(b"City Hotel", b"<script>alert(1)</script>"), 200
    yield "a path out of it", "GET", "/../../etc/passwd", BEARER, b"", 404
    yield "the same encoded", "GET", "/%2e%2e/%2e%2e/etc/passwd", BEARER, b"", 404
    yield "another slash", "POST", "/predict/", JSON, body, 404
    yield "a method", "PUT", "/predict", JSON, body, 405
    yield "TRACE", "TRACE", "/predict", BEARER, b"", 405
    yield "a request id that is a log line", "GET", "/health", {"X-Request-ID": 'a" level="x'}, b"", 200


def test_attacks_are_refused_in_a_sentence_and_leave_it_well(guarded: TestClient) -> None:
    for name, method, path, headers, body, status in attacks():
        answer = guarded.request(method, path, headers=headers, content=body, follow_redirects=False)
        assert answer.status_code == status, (name, answer.text)
        assert answer.headers["content-type"] == "application/json", name
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"]), name
        assert "Traceback" not in answer.text and ".py" not in answer.text and len(answer.content) < 10_000, name
        if status >= 400:
            assert set(answer.json()) >= {"error", "do", "request_id"}, name
    assert guarded.get("/ready").json()["ready"]


def test_whatever_its_description_allows_is_answered_as_described(trained: World) -> None:
    with served(trained) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [found.ok() for found in schema.get_all_operations()]
        assert {operation.label for operation in operations} == {
            *("POST /predict", "GET /health", "GET /ready", "GET /model", "GET /metrics")
        }
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        # What agrees with the form may break a rule that spans columns; whether it should is told elsewhere.
        rules = CHECKS.get_by_names(["positive_data_acceptance"])
        seen = set()

        @hypothesis.settings(max_examples=80, database=None, suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=st.one_of(*(o.as_strategy(generation_mode=m) for o in operations for m in modes)))
        def ask(case: schemathesis.Case) -> None:
            told = case.as_transport_kwargs(base_url="http://localhost")
            body = {"json": told["json"]} if "json" in told else {"content": told.get("data")}
            answer = client.request(told["method"], told["url"], headers=dict(told["headers"]), **body)
            seen.add((case.operation.label, answer.status_code))
            case.validate_response(answer, excluded_checks=rules)

        ask()
        assert {("POST /predict", 422), ("GET /model", 200)} <= seen


def test_its_examples_are_true_and_its_page_is_what_it_says_of_itself(trained: World) -> None:
    with served(trained) as client:
        described = client.get("/openapi.json").json()
        predict = described["paths"]["/predict"]["post"]
        for example in predict["requestBody"]["content"]["application/json"]["examples"].values():
            answer = client.post("/predict", json=example["value"])
            assert answer.status_code == 200, answer.text
        told = predict["responses"]["200"]["content"]["application/json"]["example"]
        for one in (told, answer.json()):
            assert set(one) == {"request_id", "predictions"}
        [example], [given] = told["predictions"], answer.json()["predictions"]
        assert set(example) == set(given) and set(example["reasons"][0]) == set(given["reasons"][0])
    assert PAGE.read_text() == reference(described), "write it anew: deployments/api/reference.py says how"


def test_who_asks_too_fast_is_slowed_and_others_are_not(trained: World, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"pms {OTHER}\n")
    with served(trained, token=TOKEN, tokens_file=tokens, requests_per_second=0.5) as client:
        assert client.get("/model", headers=BEARER).status_code == 200
        slowed = client.get("/model", headers=BEARER)
        assert slowed.status_code == 429 and slowed.headers["retry-after"] == "1"
        assert client.get("/model", headers={"Authorization": f"Bearer {OTHER}"}).status_code == 200


def test_an_error_that_nobody_foresaw_is_told_without_its_traceback(
    trained: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(trained) as client:
        monkeypatch.setattr(client.api.service._desk, "answer", lambda *_: 1 / 0)  # type: ignore[attr-defined]
        failed = client.post("/predict", json=told(2))
        assert failed.status_code == 500
        assert "ZeroDivision" not in failed.text and failed.json()["request_id"] in failed.json()["do"]
        monkeypatch.undo()
        assert client.post("/predict", json=told(2)).status_code == 200
