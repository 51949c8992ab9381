"""Puts adapters and use cases together from settings; the one place that knows them all."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from cancellations import settings as settings_module
from cancellations.domain.calibration import Calibration
from cancellations.domain.checks import DayCheck, Hold
from cancellations.domain.events import FlowFailed, FlowSilent
from cancellations.domain.fidelity import Fidelity
from cancellations.domain.outlook import Outlook
from cancellations.domain.retraining import RetrainRequest
from cancellations.errors import BadInput, CancellationsError, NotEnoughData
from cancellations.mail.message import write as write_mail
from cancellations.mail.samples import sample_letters
from cancellations.mail.smtp import SmtpMailer
from cancellations.metrics import GroupBootstrap
from cancellations.model import TRUSTED_TYPES, GradientBoosting, Model
from cancellations.pages import write as write_page
from cancellations.ports import (
    Doorbell,
    Exports,
    Load,
    Mailer,
    Monitor,
    Observation,
    Overview,
    Pictures,
    Quarantined,
    QuarantineState,
    RowClassifier,
    Source,
    StoredDecision,
    Trainer,
    VersionRecord,
)
from cancellations.registry import MlflowRegistry, import_client
from cancellations.settings import NEVER, Settings
from cancellations.sources.check import Check as Check
from cancellations.sources.check import check
from cancellations.sources.draft import Draft as Draft
from cancellations.sources.draft import draft_file, draft_query
from cancellations.sources.find import SIMULATOR, find, simulated
from cancellations.sources.kept import reopen
from cancellations.sources.mapped import MappedTable, open_table
from cancellations.sources.mapping import read_mapping
from cancellations.sources.selection import Selected, unbiased
from cancellations.sources.simulator import Drift, Simulator
from cancellations.sources.writing import Written as Written
from cancellations.sources.writing import write
from cancellations.store import Database as Database
from cancellations.store import SqlStore, open_store, upgrade
from cancellations.store.exports import TableExports
from cancellations.usecases import adopt as adopt_
from cancellations.usecases import alarm as alarm_
from cancellations.usecases import calibrate as calibrate_
from cancellations.usecases import check as check_
from cancellations.usecases import compare as compare_
from cancellations.usecases import deliver as deliver_
from cancellations.usecases import digest as digest_
from cancellations.usecases import explain as explain_
from cancellations.usecases import fidelity as fidelity_
from cancellations.usecases import guard as guard_
from cancellations.usecases import hold as hold_
from cancellations.usecases import ingest as ingest_
from cancellations.usecases import monitor as monitor_
from cancellations.usecases import outlook as outlook_
from cancellations.usecases import overview as overview_
from cancellations.usecases import promote as promote_
from cancellations.usecases import quarantine as quarantine_
from cancellations.usecases import recalibrate as recalibrate_
from cancellations.usecases import reconcile as reconcile_
from cancellations.usecases import release as release_
from cancellations.usecases import reproduce as reproduce_
from cancellations.usecases import retain as retain_
from cancellations.usecases import retrain as retrain_
from cancellations.usecases import score as score_
from cancellations.usecases import serve as serve_
from cancellations.usecases import status as status_
from cancellations.usecases import trial as trial_
from cancellations.usecases.training import Tools, TrainingPolicy
from monitoring.plots import ReportPictures


def clock() -> datetime:
    """Wall time, UTC."""
    return datetime.now(UTC)


def owner() -> str:
    """Who we are in a lease: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def prepare(settings: Settings) -> None:
    """Brings the store's tables and the registry to what this version needs. Idempotent."""
    upgrade(settings.store_url)
    registry(settings).prepare()


def database_of(settings: Settings) -> Database:
    """The store's database, for those who look after it; need not be there yet."""
    return Database(settings.store_url)


def import_mlflow() -> None:
    """MLflow as registries use it, which otherwise is imported by the first question."""
    import_client()


def greet_mail_server(settings: Settings, patience: float) -> None:
    """Logs in to the owners' mail server and sends nothing; raises `ServiceDown`, also when it stays silent for
    `patience` seconds, or `BadInput`."""
    mail = settings.mail
    hurried = mail.model_copy(update={"timeout_seconds": min(patience, mail.timeout_seconds)})
    SmtpMailer(hurried, settings.environment).greet()


def registry(settings: Settings) -> MlflowRegistry:
    return MlflowRegistry(
        settings.tracking_uri,
        name=settings_module.MODEL,
        artifact_root=settings.artifact_root,
        ui=settings.mlflow_ui,
        restore=Model,
        trusted=TRUSTED_TYPES,
        login=settings.mlflow_login,
    )


def draw_replay(
    weekly: pd.DataFrame,
    days: Mapping[str, Sequence[date]],
    baseline: str,
    signals: Mapping[date, Mapping[str, float]],
) -> bytes:
    """PNG of a replay, as `monitoring.replay_plot` tells."""
    from monitoring.replay_plot import draw

    return draw(weekly, days, baseline, signals)


def trainer() -> Trainer:
    """What fits models, for whoever has no house to run."""
    return GradientBoosting()


# Our page of a decided window, beside Evidently's.
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class App:
    """Every use case, bound to the adapters of these settings.

    `doorbell` is the orchestrator, where there is one; without it events wait in the outbox.
    """

    settings: Settings
    doorbell: Doorbell | None = None
    trainer: GradientBoosting = field(default_factory=GradientBoosting)

    @cached_property
    def store(self) -> SqlStore:
        return open_store(self.settings.store_url)

    @cached_property
    def registry(self) -> MlflowRegistry:
        return registry(self.settings)

    @cached_property
    def watch(self) -> Monitor:
        from monitoring.report import EvidentlyMonitor

        return EvidentlyMonitor(self.settings.monitor)

    def dataset_share(self, observation: Observation) -> float | None:
        """Share of columns that drifted by Evidently's own defaults, for comparisons: no decision of ours asks it."""
        from monitoring.drift import dataset_share

        return dataset_share(observation.reference, observation.current, self.settings.monitor.sample_rows)

    @cached_property
    def pictures(self) -> Pictures:
        return ReportPictures()

    @property
    def exports(self) -> Exports:
        return TableExports()

    @property
    def mailer(self) -> Mailer | None:
        """None where no SMTP server is set: mails then wait for one, or for the stack's mailbox."""
        if not self.settings.mail.is_set:
            return None
        return SmtpMailer(self.settings.mail, self.settings.environment)

    @property
    def tools(self) -> Tools:
        return Tools(self.trainer, GroupBootstrap(), self.pictures)

    @property
    def training_policy(self) -> TrainingPolicy:
        knobs = self.settings.retrain
        return TrainingPolicy(
            labels=self.settings.labels,
            gate=self.settings.gate,
            trial=self.settings.trial,
            seed=knobs.seed,
            reference_rows=knobs.reference_rows,
            lease_ttl=self.settings.lease_ttl,
            max_attempts=knobs.max_attempts,
            recipes=knobs.recipes,
            cookbook=self.settings.cookbook,
        )

    def ingest(
        self,
        source: Source,
        *,
        after: date | None = None,
        until: date,
        again: bool = True,
        quarantine_limit: float | None = None,
        on_batch: Callable[[int], None] = lambda rows: None,
    ) -> Load:
        policy = self.load_policy
        if quarantine_limit is not None:
            policy = replace(policy, quarantine_limit=quarantine_limit)
        return ingest_.ingest(
            source, self.store, after=after, until=until, clock=clock, policy=policy, again=again, on_batch=on_batch
        )

    @property
    def load_policy(self) -> ingest_.LoadPolicy:
        knobs = self.settings.quarantine
        return ingest_.LoadPolicy(self.settings.labels, knobs.limit, knobs.spared)

    def quarantined(self, source: str | None = None, *states: QuarantineState) -> list[Quarantined]:
        """Rows in quarantine, of one source and some states or of all."""
        with self.store.begin() as work:
            return work.quarantined(*states, source=source)

    def retry_quarantined(
        self,
        *,
        until: date,
        numbers: Collection[int] | None = None,
        source: str | None = None,
        mapping: Path | None = None,
        lines: Sequence[Sequence[str]] | None = None,
    ) -> quarantine_.Retried:
        return quarantine_.retry(
            self.store,
            reopen,
            until=until,
            clock=clock,
            policy=self.load_policy,
            numbers=numbers,
            source=source,
            mapping=None if mapping is None else read_mapping(mapping).text,
            lines=lines,
        )

    def drop_quarantined(self, numbers: Collection[int], reason: str) -> int:
        return quarantine_.drop(self.store, numbers, reason, clock())

    def score(
        self,
        *,
        after: date | None = None,
        until: date,
        across: score_.Across | None = None,
        on_chunk: Callable[[str, int], None] = lambda version, rows: None,
    ) -> score_.Scored:
        """Scores here, or with `across` in the partitions that the settings ask for."""
        knobs = self.settings.scoring
        cut = knobs.runner != "here" and across is not None
        return score_.score(
            self.store,
            self.registry,
            after=after,
            until=until,
            rule=self.settings.labels,
            chunk_rows=self.settings.chunk_rows,
            clock=clock,
            cut=score_.Cut(knobs.partitions, knobs.least_rows) if cut else score_.Cut(),
            across=across,
            on_chunk=on_chunk,
            checks=self.settings.checks,
            hold_out=self.settings.actions.hold_out,
        )

    def score_partition(self, partition: score_.Partition) -> int:
        return score_.score_partition(
            self.store, self.registry, partition, chunk_rows=self.settings.chunk_rows, clock=clock
        )

    def desk(self) -> serve_.Desk:
        """Where single bookings are answered for, while somebody waits."""
        known = self.settings
        return serve_.Desk(
            self.store,
            known.labels,
            clock=clock,
            today=lambda: known.today,
            history_age=timedelta(seconds=known.api.history_seconds),
            hold_out=known.actions.hold_out,
        )

    def follow(self, present: serve_.Serving | None, load: serve_.Loader) -> serve_.Serving:
        return serve_.follow(self.store, load, present)

    def load_rows(self, record: VersionRecord) -> RowClassifier:
        """A version for single bookings, loaded anew and proven on its sample; raises `BadInput` for one that can't
        serve, whatever it is made of, and `ServiceDown`."""
        from cancellations.inference import RowModel

        model = self.registry.load(record.version, fresh=True)
        try:
            sample = self.registry.reference(record.version).drop(columns="label", errors="ignore")
            probability = model.predict(sample)
            if not len(sample) or not np.all((probability >= 0) & (probability <= 1)):
                raise BadInput(f"version {record.version} does not give each booking of its sample a probability")
            return RowModel(model, sample)
        except CancellationsError:
            raise
        except Exception as error:
            raise BadInput(f"version {record.version} cannot score its own sample: {error!r}") from error

    def record(self, notes: Sequence[serve_.Note]) -> serve_.Recorded:
        return serve_.record(self.store, notes, as_of=self.settings.today, now=clock())

    def champion(self) -> serve_.Champion:
        return serve_.champion(self.store)

    def check(self, *, until: date) -> tuple[DayCheck, ...]:
        """The bookings of each day before `until` since the last one that was checked."""
        return check_.check_days(
            self.store, until=until, rule=self.settings.labels, policy=self.settings.checks, clock=clock
        )

    def release(self, day: date, *, reason: str, by: str) -> Hold:
        """A day that is held back from scoring is scored as it is, from the next time on."""
        return hold_.release(self.store, day, reason=reason, by=by, clock=clock)

    def monitor(
        self,
        *,
        after: date | None = None,
        until: date,
        on_look: Callable[[StoredDecision], None] = lambda decision: None,
    ) -> monitor_.Monitored:
        knobs = self.settings.monitor
        return monitor_.monitor(
            self.store,
            self.registry,
            self.watch,
            after=after,
            until=until,
            rhythm=monitor_.Rhythm(knobs.window_days, knobs.step_days),
            rule=self.settings.labels,
            policy=self.settings.retrain_policy,
            open_bookings=knobs.open_bookings,
            clock=clock,
            against=knobs.against,
            on_look=on_look,
        )

    def calibrate(self, *, as_of: date, on_champion: Callable[[int, int], None] = lambda done, of: None) -> Calibration:
        """Thresholds of the house's own past, by what was known on a day; nothing is kept."""
        from monitoring.distances import distance
        from monitoring.report import EvidentlyMonitor, documented

        knobs, training = self.settings.monitor, self.training_policy
        making = calibrate_.Making(
            training.cookbook[training.recipes[0]], training.seed, training.reference_rows, training.gate.min_rows
        )
        return calibrate_.calibrate(
            self.store,
            self.trainer,
            # By the hundred Evidently's own distances take twice as long as their twin, which is equal to them.
            EvidentlyMonitor(knobs, distance, telling=False),
            as_of=as_of,
            documented=documented(),
            policy=self.settings.calibration,
            making=making,
            rhythm=monitor_.Rhythm(knobs.window_days, knobs.step_days),
            rule=self.settings.labels,
            open_bookings=knobs.open_bookings,
            against=knobs.against,
            on_champion=on_champion,
        )

    def keep_calibration(self, calibration: Calibration) -> None:
        calibrate_.keep(self.store, calibration, clock)

    def forget_calibration(self, *, as_of: date) -> None:
        """From a day on the documented thresholds count again."""
        calibrate_.keep(self.store, Calibration(as_of), clock)

    @property
    def thresholds_set(self) -> list[str]:
        """Signals whose threshold the settings name, whatever was learned."""
        from monitoring.report import set_by_hand

        return set_by_hand(self.settings.monitor)

    def report(self, window: date | None = None) -> tuple[Overview, str]:
        """A window that was looked at, by its last day, in the history of its home; and its page as HTML."""
        found = overview_.overview(
            self.store,
            self.registry,
            self.watch,
            window=window,
            rule=self.settings.labels,
            open_bookings=self.settings.monitor.open_bookings,
            against=self.settings.monitor.against,
        )
        champion, report_id = found.champion.version, found.stored.report_id
        addresses = {f"champion v{champion}": self.registry.version_address(champion)}
        if found.stored.request_id is not None:
            addresses["Evidently's report"] = self.registry.report_address(champion, report_id)
        links = {name: address for name, address in addresses.items() if address is not None}
        return found, write_page(found, self.pictures.overview(found), links, self.settings.environment, clock())

    def keep_report(self, stored: StoredDecision) -> str | None:
        """Puts the page of a decision beside Evidently's, as `REPORT_FILE`; returns where both can be seen."""
        _, page = self.report(stored.report.window.end)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / REPORT_FILE
            file.write_text(page, encoding="utf-8")
            self.registry.log_report(stored.report.champion, stored.report_id, [file])
        return self.registry.report_address(stored.report.champion, stored.report_id)

    def request_training(self, as_of: date, reason: str) -> RetrainRequest:
        return retrain_.request_training(
            self.store, as_of=as_of, reason=reason, policy=self.training_policy, clock=clock
        )

    def retrain(self, request_id: str, say: Callable[[str], None] = lambda text: None) -> RetrainRequest:
        return retrain_.retrain(
            request_id,
            store=self.store,
            registry=self.registry,
            tools=self.tools,
            policy=self.training_policy,
            owner=owner(),
            clock=clock,
            say=say,
        )

    def release_version(
        self,
        *,
        as_of: date,
        approval: str | None = None,
        anyway: bool = False,
        by: str,
        say: Callable[[str], None] = lambda text: None,
    ) -> release_.Released:
        """Makes a version of the present code and recipes, where there is none; `approval` promotes it."""

        def train(reason: str, day: date) -> RetrainRequest:
            done = self.retrain(self.request_training(day, reason).request_id, say=say)
            self.score_challenger(done)
            return done

        means = release_.Means(
            store=self.store,
            registry=self.registry,
            policy=self.training_policy,
            train=train,
            promote=lambda version, reason, day: self.promote(version, reason=reason, by=by, as_of=day),
        )
        return release_.release(means, as_of=as_of, approval=approval, anyway=anyway)

    def deliver(self) -> deliver_.Delivered:
        return deliver_.deliver(
            self.store,
            doorbell=self.doorbell,
            mailer=self.mailer,
            pictures=self.pictures,
            registry=self.registry,
            run_address=self.run_address,
            max_attempts=self.settings.message_attempts,
            owner=owner(),
            clock=clock,
            weekly=self.settings.mail.weekly_topics,
        )

    def digest(self, as_of: date) -> digest_.Digested:
        """Writes the weekly digest, if one is due on a day."""
        mail = self.settings.mail
        return digest_.digest(
            self.store,
            as_of=as_of,
            weekday=None if mail.digest_day == NEVER else mail.digest_day,
            weekly=mail.weekly_topics,
            environment=self.settings.environment,
            owner=owner(),
            clock=clock,
        )

    def retain(self, as_of: date, *, dry_run: bool = False) -> retain_.Retained:
        """Takes away what is older than the settings keep; with `dry_run` it counts."""
        home = self.settings.home
        return retain_.retain(
            self.store,
            self.registry,
            retain_.Folders(outlooks=home / "outlook", mails=home / "outbox"),
            self.settings.retention.policy,
            self.settings.labels,
            as_of=as_of,
            clock=clock,
            chunk_rows=self.settings.chunk_rows,
            dry_run=dry_run,
        )

    def run_address(self, run: str) -> str | None:
        """The page of a flow run, when Prefect's UI is configured."""
        ui = self.settings.prefect_ui.rstrip("/")
        return f"{ui}/runs/flow-run/{run}" if ui else None

    def tell_failed(self, *, flow: str, run_id: str, run: str, state: str, said: str, at: datetime) -> FlowFailed:
        """Writes a mail about a run of a flow that ended in an error."""
        return alarm_.tell_failed(
            self.store, flow=flow, run_id=run_id, run=run, state=state, said=said, at=at, now=clock()
        )

    def tell_silent(self, *, flow: str, since: datetime | None, hours: int) -> FlowSilent:
        """Writes a mail about a flow that has completed no run since a moment."""
        return alarm_.tell_silent(self.store, flow=flow, since=since, hours=hours, now=clock())

    def reconcile(self, patience: timedelta | None = None) -> reconcile_.Reconciled:
        return reconcile_.reconcile(
            self.store,
            self.registry,
            doorbell=self.doorbell,
            patience=timedelta(seconds=self.settings.retrain.patience_seconds) if patience is None else patience,
            overdue=timedelta(minutes=self.settings.retrain.overdue_minutes),
            max_attempts=self.settings.retrain.max_attempts,
            clock=clock,
            settle_aliases=lambda: adopt_.settle_aliases(self.house, self.settings.aliases),
        )

    @property
    def house(self) -> promote_.House:
        return promote_.House(
            store=self.store,
            registry=self.registry,
            policy=self.settings.trial,
            rule=self.settings.labels,
            chunk_rows=self.settings.chunk_rows,
            clock=clock,
            checks=self.settings.checks,
            guards=self.settings.guards,
            actions=self.settings.actions,
        )

    def guard(self, *, until: date) -> guard_.Guarded:
        """Looks at a new champion's first bookings, if there are enough by `until` and nobody has."""
        return guard_.guard(self.house, until=until)

    def score_challenger(self, request: RetrainRequest) -> score_.Scored | None:
        return trial_.score_challenger(self.house, request)

    def trial(self, *, until: date, run: str | None = None) -> trial_.Looked:
        return trial_.look(self.house, until=until, run=run)

    def ask(self, trial_id: str, run: str) -> None:
        trial_.ask(self.house, trial_id, run)

    def answer(self, trial_id: str, *, approve: bool, reason: str, by: str, as_of: date) -> trial_.Looked:
        return trial_.answer(self.house, trial_id, approve=approve, reason=reason, by=by, as_of=as_of)

    def withdraw(self, *, reason: str, by: str, as_of: date) -> trial_.Looked:
        return trial_.withdraw(self.house, reason=reason, by=by, as_of=as_of)

    def promote(self, version: str, *, reason: str, by: str, as_of: date) -> promote_.Takeover:
        return promote_.promote(self.house, version, reason=reason, by=by, as_of=as_of)

    def roll_back(self, *, to: str | None, reason: str, by: str, as_of: date) -> promote_.Takeover:
        return promote_.roll_back(self.house, to=to, reason=reason, by=by, as_of=as_of)

    def acknowledge(self) -> str | None:
        """Promotions need no person any more; returns why they did, None when they didn't."""
        with self.store.begin() as work:
            reason = work.promotions_held()
            work.release_promotions()
            work.commit()
        return reason

    def recalibrate(self, *, as_of: date, by: str = recalibrate_.AUTOMATIC) -> recalibrate_.Recalibration:
        """Whether the settings schedule it or not."""
        return recalibrate_.recalibrate(
            self.house,
            self.trainer,
            self.settings.recalibration.policy,
            as_of=as_of,
            by=by,
            owner=owner(),
            lease_ttl=self.settings.lease_ttl,
            seed=self.settings.retrain.seed,
        )

    def explain(self, version: str, as_of: date | None = None) -> explain_.Explanation:
        return explain_.explain(self.store, version, as_of or self.settings.today)

    def history(self) -> explain_.History:
        return explain_.history(self.store)

    def reproduce(self, version: str) -> reproduce_.Reproduction:
        return reproduce_.reproduce(version, registry=self.registry, trainer=self.trainer)

    def compare(self, first: str, second: str, *, as_of: date, days: int) -> compare_.Compared:
        return compare_.compare(
            first,
            second,
            store=self.store,
            registry=self.registry,
            evaluator=self.tools.evaluator,
            pictures=self.pictures,
            rule=self.settings.labels,
            seed=self.settings.retrain.seed,
            as_of=as_of,
            days=days,
        )

    def scores(self, as_of: date) -> pd.DataFrame:
        """What is served of each booking that is open on a day, as `ports.UnitOfWork.served` gives it."""
        with self.store.begin() as work:
            return work.served(as_of)

    def outlook(self, as_of: date) -> Outlook:
        """The coming nights, seen in the morning of a day."""
        knobs = self.settings.outlook
        return outlook_.look_ahead(
            self.store, as_of=as_of, horizon=knobs.nights, share=knobs.interval, rule=self.settings.labels
        )

    def outlook_tables(self, outlook: Outlook) -> dict[str, pd.DataFrame]:
        return outlook_.tables(outlook, self.settings.outlook.riskiest)

    def draw_outlook(self, outlook: Outlook) -> bytes:
        return outlook_.draw(outlook, self.pictures, self.settings.outlook.currency)

    def publish_outlook(self, as_of: date) -> outlook_.Published:
        """Writes the day's files to `home/outlook/DAY`, and one mail to the readers."""
        knobs = self.settings.outlook
        return outlook_.publish(
            self.outlook(as_of),
            store=self.store,
            exports=self.exports,
            pictures=self.pictures,
            folder=self.settings.home / "outlook",
            riskiest=knobs.riskiest,
            currency=knobs.currency,
            environment=self.settings.environment,
            readers=knobs.readers,
            clock=clock,
        )

    def status(self, as_of: date | None = None) -> status_.Status:
        return status_.status(self.store, self.registry, as_of or self.settings.today)

    def pause(self, reason: str) -> None:
        with self.store.begin() as work:
            work.pause(reason, clock())
            work.commit()

    def resume(self) -> str | None:
        """Lets automatic retraining go on; returns why it was paused, None when it was not."""
        with self.store.begin() as work:
            reason = work.paused()
            work.resume()
            work.commit()
        return reason


# How names of tables end, in any case.
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


def sample_mails(settings: Settings) -> dict[str, EmailMessage]:
    """An invented mail of each kind, as these settings would send it, by a name fit for a file."""
    letters = sample_letters(ReportPictures())
    return {name: write_mail(letter, settings.mail, _as_a_test(settings)) for name, letter in letters.items()}


def send_sample(settings: Settings, kind: str) -> None:
    """Sends one of them to the owners; raises `ServiceDown` when the server does not take it."""
    if not settings.mail.is_set:
        raise BadInput("no mail server is set: CANCELLATIONS_MAIL__HOST names it, docs/mail.md the other settings")
    letters = sample_letters(ReportPictures(), [kind])
    if kind not in letters:
        raise BadInput(f"there is no mail {kind!r}; there are {', '.join(sample_letters(ReportPictures()))}")
    # A new id each time: mail programs show a mail that they know by its id once.
    letter = replace(letters[kind], message=replace(letters[kind].message, id=str(uuid4())))
    SmtpMailer(settings.mail, _as_a_test(settings)).send(letter)


def _as_a_test(settings: Settings) -> str:
    return f"{settings.environment} test".strip()


def left_alone(given: str | None, settings: Settings) -> list[str]:
    """Names in the folder that `locators` does not take for tables; what is hidden is still being copied."""
    folder = settings.watch if given is None else Path(given)
    if folder is None or not folder.is_dir():
        return []
    known = (f for f in folder.iterdir() if not f.name.startswith(".") and f.suffix != ".toml")
    return sorted(f.name for f in known if not _is_table(f))


def locators(given: str | None, settings: Settings, mapping: Path | None = None) -> list[str]:
    """What a name stands for: `simulator`, a file, or the files of a folder.

    None is the database that the mapping queries, else the watched folder.
    """
    if given is None:
        by = mapping or settings.mapping
        if by is not None and read_mapping(by).source.is_database:
            return [str(by)]
        if settings.watch is None:
            raise BadInput("no source was given and no folder is watched; name a file, or set CANCELLATIONS_WATCH")
        given = str(settings.watch)
    folder = Path(given)
    return sorted(str(f) for f in folder.iterdir() if _is_table(f)) if folder.is_dir() else [given]


def open_source(locator: str, settings: Settings, mapping: Path | None = None) -> Source:
    """The source behind one locator: the simulator, a table, or a mapping with a query of its own.

    A table is read by the mapping given, else the settings', else `mapping.toml` in its folder, else one
    of the package's whose columns it has. Raises `BadInput` when it cannot be read.
    """
    if locator == SIMULATOR:
        return simulated(settings.max_lead_days)
    return Selected(
        open_table(Path(locator), mapping or settings.mapping),
        max_lead_days=settings.max_lead_days,
        booked_from=settings.booked_from,
        booked_until=settings.booked_until,
    )


def draft_mapping(
    path: Path | None = None, *, query: str | None = None, url: str | None = None, url_env: str | None = None
) -> Draft:
    """A first mapping for a file, or for the answer to a query; raises `BadInput` when there is no table."""
    if path is not None:
        return draft_file(path)
    return draft_query(query or "", url=url, url_env=url_env)


def check_mapping(path: Path, settings: Settings, mapping: Path | None = None, rows: int | None = None) -> Check:
    """What a load of a table by a mapping would bring; the mapping is found as `open_source` finds it."""
    return check(open_table(path, mapping or settings.mapping), settings.quarantine, settings.today, rows)


@dataclass(frozen=True)
class Reservations:
    """Where reservations come from, and the days of booking on which no edge of the data shows."""

    locator: str
    first: date
    last: date


def locate(data: Path | None, settings: Settings, say: Callable[[str], None]) -> Reservations:
    """The first reservations that can be had: `data`, a file nearby, the cache, a download, the simulator."""
    found = find(data, settings, say)
    if isinstance(found, MappedTable):
        first, last = unbiased(found, settings.max_lead_days)
        return Reservations(str(Path(found.place).absolute()), first, last)
    return Reservations(SIMULATOR, found.first, found.last)


# How far ahead the bookings are made that two tables are compared by, where the settings say nothing: more
# cuts the days of a table that no edge touches.
COMPARED_LEAD_DAYS = 180


@dataclass(frozen=True)
class Simulation:
    """A simulated world: `drifts` as KIND:DATE:STRENGTH, `scale` times the bookings of two hotels."""

    first: date
    days: int
    seed: int
    scale: float = 1.0
    drifts: tuple[str, ...] = ()

    def source(self, max_lead_days: int | None = None) -> Simulator:
        """Raises `BadInput` for a drift that cannot be read."""
        drifts = [Drift.parse(text) for text in self.drifts]
        return Simulator(self.first, self.days, self.seed, drifts, scale=self.scale, max_lead_days=max_lead_days)


def write_simulated(
    simulation: Simulation, path: Path, *, truth: bool, shown: Callable[[date, int], None] = lambda day, rows: None
) -> Written:
    """Writes a simulated world to a file that `open_source` reads; raises `BadInput` when it cannot."""
    return write(simulation.source(), path, truth=truth, shown=shown)


def compare_simulated(
    path: Path, settings: Settings, *, seed: int, drifts: Sequence[str] = (), mapping: Path | None = None
) -> tuple[Fidelity, bytes]:
    """A real table beside a world simulated for its days, and a picture (PNG).

    Bookings of the days that the table holds whole, made at most the settings' `max_lead_days` ahead, else
    `COMPARED_LEAD_DAYS`. Raises `BadInput` when the table cannot be read, `NotEnoughData` when it is too small.
    """
    lead = settings.max_lead_days or COMPARED_LEAD_DAYS
    from monitoring.fidelity_plot import draw

    real = open_table(path, mapping or settings.mapping)
    first, last = unbiased(real, lead)
    if last < first:
        raise NotEnoughData(
            f"{path} spans less than {lead} days of arrivals: it holds no day of booking whole. Name a longer table,"
            " or set CANCELLATIONS_MAX_LEAD_DAYS to fewer days."
        )
    simulated = Simulation(first, (last - first).days + 1, seed, drifts=tuple(drifts)).source(lead)
    whole = Selected(real, max_lead_days=lead, booked_from=first, booked_until=last)
    found = fidelity_.compare(whole, simulated, GradientBoosting(), settings.labels, settings.retrain.seed)
    return found, draw(found)


def _is_table(path: Path) -> bool:
    """A file that is still being copied often has a dot in front; those are left for later."""
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(TABLES)
