"""What flow runs stand on, looked over: database, MLflow and its champion, mail server, clocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version as installed
from urllib.parse import urlsplit, urlunsplit

import httpx

from cancellations.bootstrap import App, database_of, greet_mail_server
from cancellations.domain.aliases import CHAMPION
from cancellations.domain.health import Finding, Verdict, of_clock, of_versions
from cancellations.errors import BadInput, CancellationsError, ServiceDown
from cancellations.settings import Settings
from cancellations.usecases.aliases import disagreements
from deployments.doctor.checks import Check
from deployments.doctor.server import REQUEST_SECONDS, PrefectServer, Unanswered

UPGRADE = "cancellations db upgrade"
START_MLFLOW = "start it: cancellations up, or docker compose up --detach; or correct CANCELLATIONS_MLFLOW_TRACKING_URI"
RECONCILE = "prefect deployment run reconcile/reconcile"
# HTTP tells whole seconds.
WHOLE_SECONDS = timedelta(seconds=1)


@dataclass(frozen=True)
class Services:
    """The checks of the services that these settings name, and of their clocks; `prefect` has one too."""

    settings: Settings
    prefect: PrefectServer | None

    def checks(self) -> list[Check]:
        mail = self.settings.mail
        return [
            Check("database", _without_password(self.settings.store_url), self._database, UPGRADE),
            Check("mlflow", self._mlflow_place, self._mlflow, START_MLFLOW),
            Check("champion", f"alias {CHAMPION}", self._champion, "cancellations status"),
            Check("smtp", f"{mail.host}:{mail.port}", self._smtp, "then: cancellations mail test"),
            Check("clock", "this machine", self._clocks),
        ]

    @property
    def _mlflow_place(self) -> str:
        return _without_password(self.settings.tracking_uri)

    def _database(self) -> Iterator[Finding]:
        database = database_of(self.settings)
        reached = database.reach()
        found, wanted = database.revision()
        if found != wanted:
            what = f"revision {found or 'none'}, this version needs {wanted}"
            yield Finding("database", reached.place, Verdict.WRONG, what, UPGRADE)
        else:
            yield Finding("database", reached.place, Verdict.RIGHT, f"revision {found}, writable")

    def _mlflow(self) -> Iterator[Finding]:
        if self.settings.tracking_uri.startswith("http"):
            theirs = _ask_mlflow(self.settings, "/version").text.strip()
            remedy = f"install the same release on both sides: pip install 'mlflow=={theirs}', or upgrade the server"
            yield of_versions("mlflow", self._mlflow_place, "MLflow", installed("mlflow"), theirs, remedy)
        else:
            App(self.settings).registry.aliases()
            yield Finding("mlflow", self._mlflow_place, Verdict.RIGHT, f"opened by MLflow {installed('mlflow')}")

    def _champion(self) -> Iterator[Finding]:
        """Whether who is champion loads and scores, and whether the ledger says the same."""
        app = App(self.settings)
        if self.settings.tracking_uri.startswith("http"):
            # MLflow's own patience with a server that is gone is longer than ours.
            _ask_mlflow(self.settings, "/health")
        aliases = app.registry.aliases()
        version = aliases.get(CHAMPION)
        if version is not None:
            sample = app.registry.reference(version).drop(columns="label", errors="ignore")
            probability = app.registry.load(version, fresh=True).predict(sample)
            if not len(probability) or not ((probability >= 0) & (probability <= 1)).all():
                raise BadInput(f"version {version} does not give each booking of its sample a probability")
            told = f"version {version} loads and scores its sample of {len(sample):,} bookings"
            yield Finding("champion", f"alias {CHAMPION}", Verdict.RIGHT, told)
        try:
            with app.store.begin() as work:
                standing = work.standing()
            app.store.close()
        except CancellationsError:
            yield Finding("champion", "ledger", Verdict.UNKNOWN, "could not be read: see the check of the database")
            return
        if standing.champion is None and version is None:
            first = "load reservations, then: cancellations retrain"
            yield Finding("champion", "ledger", Verdict.NOTICE, "nobody is champion yet", first)
        elif told_apart := disagreements(standing, aliases):
            yield Finding("champion", "ledger", Verdict.WRONG, "; ".join(told_apart), RECONCILE)
        else:
            told = f"champion {standing.champion}, as the alias says (epoch {standing.epoch})"
            yield Finding("champion", "ledger", Verdict.RIGHT, told)

    def _smtp(self) -> Iterator[Finding]:
        mail = self.settings.mail
        where = f"{mail.host}:{mail.port}"
        if not mail.is_set:
            what = "no mail server is named: mails wait in the outbox, unless `cancellations up` runs with its mailbox"
            yield Finding("smtp", where, Verdict.NOTICE, what, "set CANCELLATIONS_MAIL__HOST; docs/mail.md")
            return
        greet_mail_server(self.settings, REQUEST_SECONDS)
        how = [{"none": "not encrypted"}.get(mail.security, mail.security), *(["logged in"] if mail.user else [])]
        yield Finding("smtp", where, Verdict.RIGHT, f"answers, {', '.join(how)}; no mail was sent")

    def _clocks(self) -> Iterator[Finding]:
        tolerance = timedelta(seconds=self.settings.doctor.clock_seconds)
        if self.prefect is not None:
            try:
                prefect = self.prefect.clock()
                yield of_clock(
                    self.prefect.address, prefect.theirs, prefect.sent, prefect.received, tolerance, WHOLE_SECONDS
                )
            except Unanswered:
                yield Finding("clock", self.prefect.address, Verdict.UNKNOWN, _SILENT)
        if self.settings.tracking_uri.startswith("http"):
            try:
                sent = datetime.now(UTC)
                theirs = parsedate_to_datetime(_ask_mlflow(self.settings, "/health").headers["date"])
                yield of_clock(self._mlflow_place, theirs, sent, datetime.now(UTC), tolerance, WHOLE_SECONDS)
            except ServiceDown:
                yield Finding("clock", self._mlflow_place, Verdict.UNKNOWN, _SILENT)
        try:
            sent = datetime.now(UTC)
            reached = database_of(self.settings).reach()
        except CancellationsError:
            yield Finding("clock", _without_password(self.settings.store_url), Verdict.UNKNOWN, _SILENT)
            return
        if reached.now is None:
            told = "this machine's: a SQLite file has no clock of its own"
            yield Finding("clock", reached.place, Verdict.RIGHT, told)
        else:
            yield of_clock(reached.place, reached.now, sent, datetime.now(UTC), tolerance, timedelta(0))


_SILENT = "could not be asked: see the check of its own"


def _ask_mlflow(settings: Settings, path: str) -> httpx.Response:
    """The answer of an MLflow server to one question, at once or not at all; by our login, else by MLflow's names."""
    address = settings.tracking_uri
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    auth = settings.mlflow_login or ((user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None)
    place = _without_password(address)
    try:
        answer = httpx.get(f"{address.rstrip('/')}{path}", auth=auth, timeout=REQUEST_SECONDS)
    except httpx.HTTPError as error:
        raise ServiceDown(f"MLflow at {place} does not answer ({str(error) or type(error).__name__})") from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise ServiceDown(
            f"MLflow at {place} refuses us (401); correct CANCELLATIONS_MLFLOW_USER and CANCELLATIONS_MLFLOW_PASSWORD,"
            " or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if not answer.is_success:
        raise ServiceDown(f"MLflow at {place} answers {path} with {answer.status_code}; look at its log")
    return answer


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if parts.password is None:
        return address
    named = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{named}"))
