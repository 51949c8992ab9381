"""What an answer costs, beside MLflow's own server of the same model on the same machine, one worker each.

`cancellations serve` gets reservations that nobody has seen: it validates them, looks up what is known of their agents
and hotels, answers by the ledger's champion and records each answer. `mlflow models serve` gets the features of the
same bookings, built beforehand, and answers. Load comes from a process of its own, one server at a time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from benchmarks.figures import Figure, Options, Outcome, run
from benchmarks.load import UNASKED, Answers, closed, open_loop
from cancellations import home as homes
from cancellations import settings
from cancellations.bootstrap import App, open_source, prepare
from cancellations.domain.reservation import COLUMNS, sized
from cancellations.domain.retraining import RequestState
from cancellations.errors import NotEnoughData, ServiceDown
from cancellations.ports import Source
from cancellations.replay.workers import workers
from cancellations.sources.simulator import Simulator
from cancellations.usecases.point_in_time import booking_time

PROJECT = Path(__file__).resolve().parent.parent
START, DAYS, QUICK_DAYS = date(2016, 1, 4), 400, 220
# Bookings made on so many days after the training are asked about, again and again under new numbers.
ASKED_DAYS = 28
REPETITIONS, QUICK_REPETITIONS = 9, 3
SECONDS, QUICK_SECONDS = 5.0, 3.0
OVERLOAD_SECONDS, QUICK_OVERLOAD_SECONDS = 60.0, 10.0
BODY_ROWS = 100
START_SECONDS = 120.0

REACH_RATE, REACH_P99, REACH_ROWS = 6.0, 0.3, 3.0
# Of requests at twice the capacity that are neither answered nor refused with a sentence: none.
REACH_UNANSWERED = 0.0
# After it an answer takes as long as before, give or take what a shared machine does.
REACH_RECOVERED = 2.0


@dataclass(frozen=True)
class Bodies:
    """The same bookings in both servers' forms; ours come under new numbers each time."""

    bookings: list[dict[str, object]]
    features: list[dict[str, object]]
    fresh: Iterator[int]

    def ours(self, requests: int, rows: int) -> list[bytes]:
        return [json.dumps({"reservations": [self._renamed() for _ in range(rows)]}).encode() for _ in range(requests)]

    def theirs(self, requests: int, rows: int) -> list[bytes]:
        # Split, as MLflow writes it: names once, which is what it reads fastest.
        many, names = len(self.features), list(self.features[0])
        cells = [[row[name] for name in names] for row in self.features]
        return [
            json.dumps(
                {"dataframe_split": {"columns": names, "data": [cells[(n * rows + i) % many] for i in range(rows)]}}
            ).encode()
            for n in range(requests)
        ]

    def _renamed(self) -> dict[str, object]:
        number = next(self.fresh)
        return {**self.bookings[number % len(self.bookings)], "reservation_id": f"asked-{number:09d}"}


def measure(options: Options) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="cancellations-serving-") as folder, ExitStack() as exits:
        home = Path(folder) / "home"
        bodies, told, day = _prepare(home, options)
        ours = exits.enter_context(_ours(home, day))
        theirs = exits.enter_context(_theirs(home))
        pool = exits.enter_context(workers(1))
        seconds = QUICK_SECONDS if options.quick else SECONDS

        def load(address: str, made: Callable[[int, int], list[bytes]], connections: int, rows: int) -> Answers:
            requests = int(seconds * (3_000 if rows == 1 else 400))
            found = pool.submit(closed, address, made(requests, rows), connections, seconds).result()
            if set(found.counts) != {200}:
                raise NotEnoughData(f"{address} was loaded, and answered {found.counts}")
            return found

        arms = {"1": (1, 1), "8": (8, 1), "bodies": (1, BODY_ROWS)}
        found: dict[tuple[str, str], list[Answers]] = {(who, arm): [] for who in ("ours", "theirs") for arm in arms}
        for repetition in range(-1, QUICK_REPETITIONS if options.quick else REPETITIONS):
            for name, (connections, rows) in arms.items():
                sides = [("ours", ours, bodies.ours), ("theirs", theirs, bodies.theirs)]
                for who, address, made in sides if repetition % 2 else reversed(sides):
                    answers = load(address, made, connections, rows)
                    if repetition >= 0:  # the first one warms up
                        found[who, name].append(answers)
            _progress(
                f"repetition {repetition}: " + ", ".join(f"{k}: {v[-1].rate:,.0f}/s" for k, v in found.items() if v)
            )
        figures = _figures(found) + _overload(pool, ours, bodies, found["ours", "8"], options.quick)
        answered = next(bodies.fresh)
        recorded = _recorded(home, ours)
    figures.append(Figure.of("answers that were recorded, of those given", [recorded["given"]], "share", at_least=1))
    return Outcome(
        tuple(figures),
        beside="mlflow models serve -m models:/cancellations@champion, one worker, OMP_NUM_THREADS=1 for both",
        input=f"{answered:,} reservations under new numbers, {told}; load from another process",
        repetitions=len(found["ours", "1"]),
    )


def _figures(found: Mapping[tuple[str, str], list[Answers]]) -> list[Figure]:
    figures = []
    for name, asked in (("1", "1 connection"), ("8", "8 connections")):
        ours, theirs = found["ours", name], found["theirs", name]
        pairs = list(zip(ours, theirs, strict=True))
        figures += [
            Figure.of(f"rows one by one, {asked}", [a.rate for a in ours], "requests/s"),
            Figure.of(f"the same by MLflow, {asked}", [a.rate for a in theirs], "requests/s"),
            Figure.of(
                f"requests/s, ours / MLflow's, {asked}",
                [a.rate / b.rate for a, b in pairs],
                "ratio",
                at_least=REACH_RATE,
            ),
            Figure.of(f"p99, {asked}", [1000 * a.quantile(0.99) for a in ours], "ms"),
            Figure.of(f"p99 by MLflow, {asked}", [1000 * a.quantile(0.99) for a in theirs], "ms"),
            Figure.of(
                f"p99, ours / MLflow's, {asked}",
                [a.quantile(0.99) / b.quantile(0.99) for a, b in pairs],
                "ratio",
                at_most=REACH_P99,
            ),
        ]
    ours, theirs = found["ours", "bodies"], found["theirs", "bodies"]
    figures += [
        Figure.of(f"bodies of {BODY_ROWS} rows", [BODY_ROWS * a.rate for a in ours], "rows/s"),
        Figure.of("the same by MLflow, bodies", [BODY_ROWS * a.rate for a in theirs], "rows/s"),
        Figure.of(
            "rows/s, ours / MLflow's, bodies",
            [a.rate / b.rate for a, b in zip(ours, theirs, strict=True)],
            "ratio",
            at_least=REACH_ROWS,
        ),
    ]
    return figures


def _overload(pool: ProcessPoolExecutor, ours: str, bodies: Bodies, before: list[Answers], quick: bool) -> list[Figure]:
    """Twice as many requests as 8 connections get answered, and what an answer takes afterwards."""
    seconds = QUICK_OVERLOAD_SECONDS if quick else OVERLOAD_SECONDS
    rate = 2 * max(answers.rate for answers in before)
    asked = bodies.ours(int(rate * seconds), 1)
    under = pool.submit(open_loop, ours, asked, rate, seconds).result()
    _progress(f"at {rate:,.0f} requests/s for {seconds:g} s: {under.counts}")
    began = time.perf_counter()
    after = pool.submit(closed, ours, bodies.ours(2_000, 1), 8, 3.0).result()
    took = time.perf_counter() - began
    refused = sum(n for status, n in under.counts.items() if status in (429, 503)) - under.without_patience
    # Where all of the client's connections wait a request is not sent, and no server can be told of it.
    unasked = under.counts.get(UNASKED, 0)
    total = len(under.statuses) - unasked
    unanswered = total - len(under.answered) - refused
    usual = sorted(answers.quantile(0.5) for answers in before)[len(before) // 2]
    if set(after.counts) != {200}:
        raise NotEnoughData(f"{took:.1f} s after the load the server answered {after.counts}")
    return [
        Figure.of("at twice the capacity: requests asked", [rate], f"requests/s for {seconds:g} s"),
        Figure.of("of them answered", [len(under.answered) / total], "share"),
        Figure.of("of them refused, and told when to ask again", [refused / total], "share"),
        Figure.of("never sent, since all connections waited", [unasked / len(under.statuses)], "share"),
        Figure.of("of them neither", [unanswered / total], "share", at_most=REACH_UNANSWERED),
        Figure.of("p99 of what was answered", [1000 * under.quantile(0.99)], "ms"),
        Figure.of("p99 of how late the client asked", [1000 * float(np.quantile(under.late, 0.99))], "ms"),
        Figure.of("median just after it / before", [after.quantile(0.5) / usual], "ratio", at_most=REACH_RECOVERED),
    ]


def _recorded(home: Path, ours: str) -> dict[str, float]:
    """What the server counts, when nothing waits any more."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        told = httpx.get(ours.replace("/predict", "/metrics"), trust_env=False).text

        def of(name: str, told: str = told) -> float:
            return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", told, re.MULTILINE))

        if of("cancellations_unrecorded") == 0:
            return {"given": of("cancellations_recorded_total") / of("cancellations_predictions_total")}
        if time.monotonic() > deadline:
            raise ServiceDown("answers still wait to be recorded after two minutes")
        time.sleep(0.5)


def _prepare(home: Path, options: Options) -> tuple[Bodies, str, date]:
    homes.prepare(home)
    known = settings.load(home=home, database_url="", mlflow_tracking_uri="", mlflow_artifacts="")
    prepare(known)
    app = App(known)
    source: Source
    if options.data is None:
        days = QUICK_DAYS if options.quick else DAYS
        source, last = Simulator(START, days, options.seed), START + timedelta(days=days)
    else:
        source = open_source(str(options.data), known)
        app.ingest(source, until=date.max)
        with app.store.begin() as work:
            span = work.booked_span()
        if span is None:
            raise NotEnoughData(f"{source.name} holds no reservation that keeps the rules")
        last = span[1]
    trained = last - timedelta(days=ASKED_DAYS)
    app.ingest(source, until=trained)
    request = app.retrain(app.request_training(trained, "benchmark").request_id)
    if request.state is not RequestState.CANDIDATE:
        raise NotEnoughData(f"no champion as of {trained}: {'; '.join(request.detail)}")
    read = pd.concat([batch.reservations for batch in source.batches() if batch.reservations is not None])
    asked = sized(read[(read["booked_on"] > pd.Timestamp(trained)) & (read["booked_on"] <= pd.Timestamp(last))])
    with app.store.begin() as work:
        features = booking_time(work, asked, known.labels)
    app.store.close()
    bookings = [_plain(row) for row in asked[[c.name for c in COLUMNS]].to_dict("records")]
    told = f"champion trained as of {trained}, {source.name}"
    # MLflow fails where a column is left out: what is missing must be told as such.
    built = [dict.fromkeys(map(str, features), None) | _plain(row) for row in features.to_dict("records")]
    return Bodies(bookings, built, iter(range(10**9))), told, last


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    """A row as JSON holds it, without what is missing."""
    told = {str(k): str(v.date()) if isinstance(v, pd.Timestamp) else v for k, v in row.items()}
    return {name: value for name, value in told.items() if value == value and value is not None}


@contextmanager
def _ours(home: Path, day: date) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "deployments.start", "serve", "--home", str(home), "--port", str(port)]
    environment = {"CANCELLATIONS_AS_OF": str(day), "CANCELLATIONS_API__REQUESTS_PER_SECOND": "1000000"}
    with _server(command, f"http://127.0.0.1:{port}/ready", home / "ours.log", environment):
        yield f"http://127.0.0.1:{port}/predict"


@contextmanager
def _theirs(home: Path) -> Iterator[str]:
    port = _free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/cancellations@champion"),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"}
    with _server(command, f"http://127.0.0.1:{port}/ping", home / "theirs.log", environment):
        yield f"http://127.0.0.1:{port}/invocations"


@contextmanager
def _server(command: list[str], ready: str, log: Path, given: Mapping[str, str]) -> Iterator[None]:
    """Runs a server until the block ends; raises `ServiceDown` when it does not come up."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("CANCELLATIONS_", "MLFLOW_"))}
    # `mlflow models serve` looks for uvicorn on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = inherited | {"OMP_NUM_THREADS": "1", "PATH": path, **given}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceDown(f"{' '.join(command[1:4])} did not come up: {log.read_text()[-2_000:]}")
            time.sleep(0.2)
        yield
    finally:
        # The whole session: MLflow's command is the parent of its server.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(run("serving", "Times answers of the API beside MLflow's own server of the same model.", measure))
