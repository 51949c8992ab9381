"""Settings, from the environment (`CANCELLATIONS_…`) or `.env` files; every knob in one place.

Nested settings use two underscores: `CANCELLATIONS_MAIL__OWNERS='["owner@example.org"]'`. A secret may lie in a
file of its own: `CANCELLATIONS_MAIL__PASSWORD_FILE=/run/secrets/smtp_password`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cancellations.domain.aliases import AliasPolicy
from cancellations.domain.calibration import CalibrationPolicy
from cancellations.domain.checks import CheckPolicy
from cancellations.domain.digest import WEEKDAYS
from cancellations.domain.events import OWNERS_MAILS, PREFIX, WEEKLY_MAILS, DigestPublished
from cancellations.domain.gate import GatePolicy
from cancellations.domain.guards import GuardPolicy
from cancellations.domain.hold_out import ActionPolicy
from cancellations.domain.in_flight import InFlightPolicy
from cancellations.domain.labels import LabelRule
from cancellations.domain.promotion import TrialPolicy
from cancellations.domain.recalibration import RecalibrationPolicy, ShiftPolicy
from cancellations.domain.recipes import DEFAULT_RECIPE, Recipe, choose, cookbook
from cancellations.domain.reference import Design, ReferencePolicy
from cancellations.domain.retention import RetentionPolicy
from cancellations.domain.retraining import RetrainPolicy
from cancellations.errors import BadInput

MODEL = "cancellations"
NEVER = "never"

# What `NAME_FILE` may be set for, the path of a file that holds it: an environment is easily shown, by `docker inspect`
# or a crash report.
SECRETS = ("database_url", "database_password", "mlflow_password", "mail__password", "api__token")


class Mail(BaseModel):
    """The SMTP server that owners' mails leave by."""

    host: str = Field("127.0.0.1", description="SMTP server")
    port: int = Field(1025, description="its port; 587 with starttls, 465 with tls")
    security: str = Field("none", pattern="^(none|starttls|tls)$", description="none | starttls | tls")
    user: str | None = Field(None, description="login, when the server wants one")
    password: str | None = Field(None, description="its password", repr=False)
    sender: str = Field("cancellations@localhost", description="From address")
    owners: list[str] = Field(["owners@localhost"], description="who gets drift reports")
    readers: dict[str, list[str]] = Field(
        {}, description="who gets mails of a kind in the owners' place; nobody: an empty list"
    )
    weekly: list[str] = Field([], description="kinds of mail that do not come at once: the weekly digest tells them")
    digest_day: str = Field(
        "monday",
        pattern=f"^({'|'.join((*WEEKDAYS, NEVER))})$",
        description="day of the week on which the digest comes, for the seven days before it; never: there is none",
    )
    evidently_kib: int = Field(
        3_000, ge=0, description="a drift's mail brings Evidently's page, zipped, up to this size; 0: never"
    )
    timeout_seconds: float = Field(20.0, description="per connection; a hanging server must not hang a flow")

    @field_validator("readers")
    @classmethod
    def _known_kinds(cls, readers: dict[str, list[str]]) -> dict[str, list[str]]:
        unknown = sorted(set(readers) - set(OWNERS_MAILS))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no kind of mail; the kinds: {', '.join(OWNERS_MAILS)}")
        return readers

    @field_validator("weekly")
    @classmethod
    def _kinds_that_may_wait(cls, weekly: list[str]) -> list[str]:
        unknown = sorted(set(weekly) - set(WEEKLY_MAILS))
        if unknown:
            raise ValueError(f"{unknown[0]!r} cannot wait for the digest; the kinds: {', '.join(WEEKLY_MAILS)}")
        return weekly

    @model_validator(mode="after")
    def _what_waits_is_told(self) -> Self:
        if self.weekly and (self.digest_day == NEVER or not self.is_read(DigestPublished.topic)):
            raise ValueError(
                f"weekly keeps {', '.join(self.weekly)} for a digest that nobody gets; name another digest_day than"
                f" {NEVER}, somebody in readers of digest.published, or nothing in weekly"
            )
        return self

    @property
    def weekly_topics(self) -> tuple[str, ...]:
        """Topics of the mails that wait for the digest."""
        return tuple(PREFIX + kind for kind in self.weekly)

    def readers_of(self, topic: str) -> list[str]:
        """Who gets the mails of a topic."""
        return self.readers.get(topic.removeprefix(PREFIX), self.owners)

    def is_read(self, topic: str) -> bool:
        """False of a kind whose mails somebody does not want."""
        return self.readers.get(topic.removeprefix(PREFIX)) != []

    @property
    def is_set(self) -> bool:
        """Whether somebody named a server; its default is an address for examples."""
        return "host" in self.model_fields_set


class PublicData(BaseModel):
    """The public hotel-bookings file (Antonio, de Almeida, Nunes 2019, CC BY 4.0)."""

    download: bool = Field(True, description="fetch it when no other file is found")
    url: str = Field(
        "https://raw.githubusercontent.com/mfarris/hotel_data/163f383c433f9bf162f55477c68165dbac6ca3d0/hotel_bookings_full.csv",
        description="address of the CSV",
    )
    sha256: str = Field(
        "7c2ae42a7353905ea136e5c2287f17c92c5435826598bfbb8491c6f0c7b1fc06",
        description="its checksum; anything else is refused",
    )
    cache: Path = Field(Path("~/.cache/cancellations"), description="where it is kept")
    timeout_seconds: float = Field(30.0, description="per connection; offline machines fall back to the simulator")


class Quarantine(BaseModel):
    """When a load has so many bad rows that it is not to be believed."""

    limit: float = Field(0.1, ge=0, le=1, description="share of a load's rows that may break a rule; more stop it")
    spared: int = Field(3, ge=0, description="so few bad rows never stop a load: a feed must not hang on one")


class MonitorSettings(BaseModel):
    """Windows and thresholds of the monitor's first rule.

    The thresholds are starting points, documented with their origin in `docs/monitoring.md`; one that is set counts,
    of the others those that `cancellations calibrate` has learned.
    """

    window_days: int = Field(28, ge=1, description="bookings made in this many days, looked at together")
    step_days: int = Field(7, ge=1, description="from one look to the next")
    reference: Design = Field(
        Design.TRAINING, description="what a window is held against: training | weeks | season; reports show all three"
    )
    reference_weeks: int = Field(13, ge=1, description="of bookings before the window, in that design")
    min_rows: int = Field(300, description="below this a window is not evaluated")
    min_matured_rows: int = Field(
        1_500, description="matured bookings below which their loss is not evaluated: at 1,000 its error is .02"
    )
    recent_days: int = Field(
        42, ge=1, description="bookings made in so many days tell of a change first: their loss is looked at apart"
    )
    min_recent_rows: int = Field(300, ge=2, description="matured ones of them below which their loss is not")
    sample_rows: int = Field(5_000, description="seeded sample per side; Evidently's cost grows with rows")
    column_drift: float = Field(0.5, gt=0, description="importance-weighted share of drifted columns that alarms")
    classifier_auc: float = Field(0.9, gt=0, description="out-of-fold AUC of telling the window from the reference")
    excess_loss: float = Field(
        0.02, gt=0, description="log loss above the scores' own entropy, nats per matured booking"
    )
    in_flight: float = Field(
        5.0,
        gt=0,
        description="standard errors that open bookings may be from forecast; a market left alone may reach 5",
    )
    calibration_bias: float = Field(
        0.05, gt=0, description="points that predicted and realised share of cancellations may be apart"
    )
    prediction_drift: float = Field(
        0.3, gt=0, description="distance of the window's scores from the reference's, in its standard deviations"
    )
    estimated_loss: float = Field(
        0.25, gt=0, description="share by which the loss that the scores expect may differ from the reference's"
    )
    volume: float = Field(3.0, gt=0, description="spreads that a week's bookings may be from what is expected")
    in_flight_days: int = Field(56, ge=1, description="open bookings made in so many days are looked at")
    in_flight_rows: int = Field(300, ge=1, description="bookings, of all or of a hotel, below which they say nothing")
    weights: dict[str, float] = Field(
        {"column drift": 1.0, "domain classifier": 1.0, "matured excess loss": 2.0},
        description="evidence weight of each signal; realised loss is the only proof of harm",
    )

    @property
    def against(self) -> ReferencePolicy:
        return ReferencePolicy(self.reference, self.reference_weeks)

    @property
    def open_bookings(self) -> InFlightPolicy:
        return InFlightPolicy(self.in_flight_days, self.in_flight_rows)


class RetrainSettings(BaseModel):
    """The retrain worker's patience, and how models are fitted."""

    lease_minutes: float = Field(15.0, description="a worker silent for so long is taken for dead")
    max_attempts: int = Field(3, description="of one request, before people are asked")
    patience_seconds: float = Field(180.0, description="of a request with its event, before reconcile starts it")
    overdue_minutes: float = Field(
        60.0,
        gt=0,
        description="until owners are told of a request that has not ended; 60 let two workers die and a third train",
    )
    recipes: tuple[str, ...] = Field(
        (DEFAULT_RECIPE,), description="names of those that compete, the preferred one first; see docs/model.md"
    )
    seed: int = Field(20, description="of fits and samples; a version is the same for the same seed")
    reference_rows: int = Field(5_000, description="size of the reference sample kept with a version")


class Recalibration(BaseModel):
    """The daily shift of the champion's log odds; `docs/recalibration.md` says when it is worth having."""

    enabled: bool = Field(False, description="whether the deployment does it; by hand it can be done always")
    half_life_days: float = Field(28.0, gt=0, description="age of a booking at which its evidence weighs half")
    ridge: float = Field(20.0, ge=0, description="bookings' worth of evidence that there is nothing to shift")
    min_shift: float = Field(0.05, gt=0, description="change of log odds below which nothing is made: a point or so")
    gate_days: int = Field(28, ge=1, description="bookings that matured in so many days are looked back on")
    min_rows: int = Field(300, ge=1, description="of the evidence, and of what is looked back on; fewer say little")
    tolerance: float = Field(
        0.001, ge=0, description="log loss per booking by which past shifts may have done worse than none"
    )
    told_shift: float = Field(0.25, gt=0, description="change of log odds since the last mail that is worth another")

    @property
    def policy(self) -> RecalibrationPolicy:
        shift = ShiftPolicy(self.half_life_days, self.ridge)
        knobs = self.model_dump(exclude={"enabled", "half_life_days", "ridge"})
        return RecalibrationPolicy(shift, **knobs)


class Scoring(BaseModel):
    """Where a batch is scored; `docs/scaling.md` says when another place than `here` pays."""

    runner: str = Field(
        "here",
        pattern="^(here|threads|processes|dask)$",
        description="here | threads | processes | dask; here starts nothing, and is enough up to some 100,000 rows",
    )
    partitions: int = Field(4, ge=1, description="parts that a batch is cut into, except here; some for each worker")
    least_rows: int = Field(5_000, ge=1, description="rows of a part at least: fewer take less time than its start")
    workers: int = Field(2, ge=1, description="threads or processes on this machine; each process takes some 500 MiB")
    dask_address: str = Field(
        "", description="scheduler of a running Dask cluster, e.g. tcp://dask:8786; empty = a cluster on this machine"
    )


class Outlook(BaseModel):
    """The morning's outlook on the coming nights."""

    nights: int = Field(60, ge=14, le=365, description="nights ahead that are told")
    interval: float = Field(0.8, gt=0.5, lt=1, description="how often an interval should hold what happens")
    riskiest: int = Field(20, ge=1, description="bookings with the most value at risk that are listed")
    currency: str = Field("€", description="sign of the hotels' currency, for people")
    readers: list[str] = Field([], description="who gets the morning mail; empty: files only")


class Retention(BaseModel):
    """How long by-products are kept; `docs/deploying.md` says what is never taken away. Empty: for ever."""

    # At least as long as a trial and the probation behind it may take.
    score_days: int | None = Field(
        None, ge=120, description="scores by versions that serve no more, from the booking's maturity date on"
    )
    report_days: int | None = Field(
        None, ge=30, description="pages of windows in MLflow, from the window's end on, and folders of morning outlooks"
    )
    mail_days: int | None = Field(
        None, ge=30, description="mails that have left, in the store and in the home's outbox"
    )

    @property
    def policy(self) -> RetentionPolicy:
        return RetentionPolicy(**self.model_dump())


# Fewer characters can be guessed.
SHORTEST_TOKEN = 16


class Api(BaseModel):
    """The HTTP API of `cancellations serve`; `docs/serving.md` tells what it answers and refuses."""

    host: str = Field("127.0.0.1", description="address that it listens on; another than loopback needs a token")
    port: int = Field(8000, ge=0, le=65_535, description="its port; 0: a free one")
    token: str | None = Field(None, description="what callers show as bearer token; 16 characters at least", repr=False)
    tokens_file: Path | None = Field(
        None, description="a file of further ones, NAME TOKEN on each line: names go to logs, and limits are by name"
    )
    body_kib: int = Field(1_024, ge=1, description="longest body of a request; a reservation takes half a KiB")
    reservations: int = Field(1_000, ge=1, description="most reservations in one request")
    waiting: int = Field(4_000, ge=1, description="reservations that may wait for their answer; more are refused")
    requests: int = Field(64, ge=1, description="requests under way at once; more are refused")
    unrecorded: int = Field(20_000, ge=1, description="answers that may wait to be recorded; beyond, none is given")
    timeout_seconds: float = Field(5.0, gt=0, description="for a body to come, and for an answer to be given")
    requests_per_second: float = Field(2_000.0, gt=0, description="of one caller; as many may come at once")
    connections: int = Field(500, ge=1, description="open at once")
    recorder: str = Field(
        "process",
        pattern="^(process|thread)$",
        description="process | thread: where answers are recorded; a thread saves 250 MiB, and makes some answers wait",
    )
    poll_seconds: float = Field(1.0, gt=0, description="how often it asks who is champion")
    history_seconds: float = Field(
        60.0, gt=0, description="age at which remembered records of agents and books are read anew; a load does it too"
    )

    @field_validator("token")
    @classmethod
    def _long_enough(cls, token: str | None) -> str | None:
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise ValueError(f"a token has {SHORTEST_TOKEN} characters at least; one is made by: openssl rand -hex 24")
        return token


def _from_files(found: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """Variables with the secrets whose files they name; one that is set itself wins, an empty file sets nothing."""
    read = dict(found)
    for secret in SECRETS:
        name = f"cancellations_{secret}"
        path = found.get(f"{name}_file")
        if not path or found.get(name):
            continue
        try:
            content = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"{name.upper()}_FILE {path} cannot be read: {error}. Correct the path, or its rights."
            ) from error
        if content:
            read[name] = content
    return read


class _Environment(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _from_files(super()._load_env_vars())


class _DotEnv(DotEnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _from_files(super()._load_env_vars())


class Doctor(BaseModel):
    """What `cancellations doctor` takes for right; `docs/runbook.md` tells what to do about the rest."""

    timeout_seconds: float = Field(30.0, gt=0, description="that a check may take; all of them run at once")
    least_free_gib: float = Field(
        2.0, ge=0, description="room on the disks of home and artifacts; a version takes some 3 MiB, a database more"
    )
    clock_seconds: float = Field(
        5.0, gt=0, description="that clocks may be apart; leases last minutes, but events are put in order by them"
    )
    canary_seconds: float = Field(
        60.0,
        gt=0,
        description="until a canary must be back; an idle worker takes five, a busy one waits its turn",
    )


class Settings(BaseSettings):
    """All settings. Addresses left empty are derived from `home`."""

    model_config = SettingsConfigDict(env_prefix="CANCELLATIONS_", env_nested_delimiter="__", extra="ignore")

    home: Path = Field(Path(".cancellations"), description="folder of databases, artifacts, mails, logs")
    database_url: str = Field("", description="SQLAlchemy URL of our store; empty = SQLite in home", repr=False)
    database_password: str | None = Field(
        None, description="its password, where the URL names a user and none", repr=False
    )
    mlflow_tracking_uri: str = Field("", description="MLflow store; empty = SQLite in home", repr=False)
    mlflow_user: str = Field("", description="login of an MLflow server that wants one")
    mlflow_password: str | None = Field(None, description="its password", repr=False)
    mlflow_artifacts: str = Field("", description="artifact folder of a local MLflow store; empty = in home")
    mlflow_ui: str = Field("", description="address of the MLflow UI for links in mails and artifacts")
    prefect_ui: str = Field("", description="address of the Prefect UI for links")
    environment: str = Field("", description="name shown in mails' subjects, e.g. 'staging'")
    as_of: date | None = Field(None, description="the day that counts as today; empty = the calendar's")
    mapping: Path | None = Field(
        None, description="what the columns of a file mean, when none is named; empty = mapping.toml beside the file"
    )
    aliases: AliasPolicy = Field(
        AliasPolicy.UNDO, description="an alias champion that somebody has moved in MLflow: undo | adopt"
    )
    watch: Path | None = Field(None, description="folder whose files the ingest flow loads when it is given none")

    labels: LabelRule = LabelRule()
    retrain_policy: RetrainPolicy = RetrainPolicy()
    gate: GatePolicy = GatePolicy()
    trial: TrialPolicy = TrialPolicy()
    actions: ActionPolicy = ActionPolicy()
    quarantine: Quarantine = Quarantine()
    checks: CheckPolicy = CheckPolicy()
    guards: GuardPolicy = GuardPolicy()
    calibration: CalibrationPolicy = CalibrationPolicy()
    monitor: MonitorSettings = MonitorSettings()
    retrain: RetrainSettings = RetrainSettings()
    recipes: dict[str, dict[str, Any]] = Field(
        {}, description='recipes of your own, e.g. {"calm/1": {"labels": "mix", "estimator": {"max_iter": 60}}}'
    )
    mail: Mail = Mail()
    recalibration: Recalibration = Recalibration()
    outlook: Outlook = Outlook()
    scoring: Scoring = Scoring()
    retention: Retention = Retention()
    api: Api = Api()
    doctor: Doctor = Doctor()
    public_data: PublicData = PublicData()

    max_lead_days: int | None = Field(
        None, description="bookings made earlier than this before arrival are set aside when a file is read"
    )
    booked_from: date | None = Field(None, description="earlier bookings are set aside when a file is read")
    booked_until: date | None = Field(None, description="later bookings are set aside when a file is read")
    chunk_rows: int = Field(50_000, ge=1, description="rows scored in one transaction")
    message_attempts: int = Field(12, description="before a message is declared dead; with backoff some two days")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        return init_settings, _Environment(settings_cls), _DotEnv(settings_cls, dotenv_settings.env_file)

    @model_validator(mode="after")
    def _recipes_are_there(self) -> Self:
        choose(self.retrain.recipes, self.cookbook)
        return self

    @cached_property
    def cookbook(self) -> dict[str, Recipe]:
        """All recipes that there are: the package's, and one's own."""
        return cookbook(self.recipes)

    @property
    def today(self) -> date:
        """Event time's present: the setting, else the calendar's day in UTC."""
        return self.as_of or datetime.now(UTC).date()

    @property
    def store_url(self) -> str:
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'cancellations.db'}"
        scheme, slashes, rest = self.database_url.partition("://")
        user, at, place = rest.partition("@")
        if not self.database_password or not at or ":" in user:
            return self.database_url
        return f"{scheme}{slashes}{user}:{quote(self.database_password, safe='')}@{place}"

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"

    @property
    def mlflow_login(self) -> tuple[str, str] | None:
        """User and password of an MLflow server; None where it wants none."""
        return (self.mlflow_user, self.mlflow_password) if self.mlflow_user and self.mlflow_password else None

    @property
    def artifact_root(self) -> str | None:
        """Where a local MLflow store keeps artifacts; a remote server decides that itself."""
        if self.mlflow_artifacts:
            return self.mlflow_artifacts
        return None if self.tracking_uri.startswith("http") else str(self.home.absolute() / "artifacts")

    @property
    def lease_ttl(self) -> timedelta:
        return timedelta(minutes=self.retrain.lease_minutes)


def load(**overrides: Any) -> Settings:
    """Settings of this process; raises `BadInput` that names each wrong setting.

    From arguments, the environment, the home's `.env`, and a `.env` in the working folder, in this order.
    """
    home = Path(overrides.get("home") or os.environ.get("CANCELLATIONS_HOME") or Settings.model_fields["home"].default)
    try:
        return Settings(_env_file=(".env", home / ".env"), **overrides)
    except ValidationError as error:
        wrong = "; ".join(
            f"CANCELLATIONS_{'__'.join(str(p).upper() for p in e['loc'])}: {e['msg']}" for e in error.errors()
        )
        raise BadInput(f"settings cannot be used: {wrong}. Correct the environment or the .env file.") from error
