"""The outbox: what waits leaves at least once, with one id; what cannot leave is tried again, then told."""

from __future__ import annotations

import io
import shutil
import socket
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from world import FIRST, WEEK, CutOff, GivenMonitor, PowerCut, World

from cancellations.domain.comparison import SequencePolicy, Step
from cancellations.domain.events import ApprovalNeeded, ChampionChanged, DriftDetected, Fact, TrialEnded
from cancellations.domain.promotion import Kind, Mode, Trial, TrialState
from cancellations.domain.retraining import RetrainPolicy
from cancellations.mail.smtp import SmtpMailer
from cancellations.ports import Letter, OutboxEntry, StoredDecision
from cancellations.settings import Mail
from cancellations.store.tables import messages
from cancellations.usecases.deliver import LEASE, LEASE_TTL, deliver, retry_delay
from deployments.mailbox import Folder
from monitoring.plots import ReportPictures

PICTURES = ReportPictures()


@dataclass
class Mailbox:
    """A mail server that can be switched off and on; it writes what it gets into `folder`."""

    folder: Path
    port: int
    server: Controller | None = None

    @property
    def mailer(self) -> SmtpMailer:
        return SmtpMailer(Mail(port=self.port, timeout_seconds=5, owners=["ada@hotel.example"]))

    def up(self) -> None:
        self.server = Controller(Folder(self.folder), hostname="127.0.0.1", port=self.port, server_hostname="localhost")
        self.server.start()

    def down(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def mails(self) -> list[EmailMessage]:
        read = [message_from_bytes(p.read_bytes(), policy=policy.default) for p in sorted(self.folder.glob("*.eml"))]
        return [m for m in read if isinstance(m, EmailMessage)]


@pytest.fixture
def store_url(tmp_path: Path, migrated_file: Path) -> str:
    # On SQLite alone: what is promised here stands on transactions that test_store.py tries on both.
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'store.db')}"


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    box = Mailbox(tmp_path / "outbox", port)
    box.up()
    yield box
    box.down()


@pytest.fixture
def drifted(serving: World) -> World:
    """An event and a mail wait."""
    end = FIRST + WEEK
    looked = serving.monitor(
        GivenMonitor([end]), until=end, after=FIRST, policy=RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)
    )
    assert looked.acted is not None
    return serving


@dataclass
class Post:
    """Keeps letters as they are handed over."""

    letters: list[Letter] = field(default_factory=list)

    def send(self, letter: Letter) -> None:
        self.letters.append(letter)


TRIAL = Trial(
    trial_id="trial-2-2",
    kind=Kind.TRIAL,
    champion="1",
    rival="2",
    epoch=2,
    opened_on=FIRST,
    cohort_after=FIRST,
    last_day=FIRST + 8 * WEEK,
    mode=Mode.APPROVE,
    serve_share=0.5,
    sequence=SequencePolicy(),
    state=TrialState.AWAITING,
    decided_on=FIRST + 3 * WEEK,
    reasons=("challenger 2 is better",),
    evidence=(Step(FIRST + 3 * WEEK, 900, 0.02, 0.01, 0.03),),
    asked_by="run-1",
)


def tell(world: World, fact: Fact, *trials: Trial) -> None:
    with world.store.begin() as work:
        for trial in trials:
            work.add_trial(trial, world.clock())
        work.add_messages(fact.messages(), world.clock())
        work.commit()


def pending(world: World) -> list[OutboxEntry]:
    with world.store.begin() as work:
        return work.pending_messages()


def dead(world: World) -> list[OutboxEntry]:
    with world.store.begin() as work:
        return work.dead_messages()


def test_event_and_mail_leave_once_and_the_mail_tells_the_decision(drifted: World, mailbox: Mailbox) -> None:
    event, mail = (entry.message for entry in pending(drifted))
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 2
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 0
    assert drifted.orchestrator.rung == [event]
    [read] = mailbox.mails()
    assert read["Message-ID"] == f"<{mail.id}@cancellations>"
    assert read["To"] == "ada@hotel.example"
    assert [p.get_content_type() for p in read.walk()].count("image/png") == 1
    body = read.get_body(("plain",))
    assert body is not None and "matured excess loss" in body.get_content()
    (attached,) = read.iter_attachments()
    with zipfile.ZipFile(io.BytesIO(attached.get_content())) as archive:
        assert archive.read("evidently.html") == b"<html>the page</html>"
    assert pending(drifted) == dead(drifted) == []


def test_events_leave_before_mails(drifted: World) -> None:
    left: list[str] = []

    @dataclass
    class Post:
        log: list[str] = field(default_factory=lambda: left)

        def send(self, letter: Letter) -> None:
            assert drifted.orchestrator.rung  # the doorbell has rung by now
            self.log.append(letter.message.topic)

    # Written in the other order, the event still goes first.
    with drifted.store.begin() as work:
        work._write(messages.update().values(number=-messages.c.number))  # type: ignore[attr-defined]
        work.commit()
    assert [e.message.channel.value for e in pending(drifted)] == ["mail", "event"]
    assert drifted.deliver(Post(), PICTURES).sent == 2
    assert left == [DriftDetected.topic]


def test_a_mail_that_cannot_leave_is_tried_ever_more_rarely_then_declared_dead(
    drifted: World, mailbox: Mailbox
) -> None:
    mailbox.down()
    first = drifted.deliver(mailbox.mailer, PICTURES, max_attempts=3)
    assert first.sent == 1  # the event does not wait for the mail
    assert "mail: the SMTP server at 127.0.0.1" in first.failed[0]
    for attempt in (1, 2):
        [entry] = pending(drifted)
        assert entry.attempts == attempt
        assert "the SMTP server" in str(entry.last_error)
        drifted.clock.now += retry_delay(attempt) - timedelta(milliseconds=1)
        assert drifted.deliver(mailbox.mailer, PICTURES, max_attempts=3).failed == ()  # not due yet
        drifted.clock.advance(milliseconds=1)
        assert len(drifted.deliver(mailbox.mailer, PICTURES, max_attempts=3).failed) == 1
    assert pending(drifted) == []
    [entry] = dead(drifted)
    assert entry.attempts == 3
    mailbox.up()
    drifted.clock.advance(days=30)
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 0
    assert drifted.status().dead == (entry,)


def test_a_mail_that_failed_leaves_once_when_its_server_is_back(drifted: World, mailbox: Mailbox) -> None:
    mailbox.down()
    drifted.deliver(mailbox.mailer, PICTURES)
    mailbox.up()
    drifted.clock.advance(seconds=15)
    assert [drifted.deliver(mailbox.mailer, PICTURES).sent for _ in range(2)] == [1, 0]
    assert len(mailbox.mails()) == 1


def test_pauses_between_attempts_double_up_to_four_hours() -> None:
    assert [retry_delay(n).total_seconds() for n in (1, 2, 3)] == [15, 30, 60]
    assert retry_delay(12) == retry_delay(40) == timedelta(hours=4)


def test_without_a_doorbell_events_stay_and_no_attempt_is_counted(drifted: World, mailbox: Mailbox) -> None:
    for sent in (1, 0):
        assert drifted.deliver(mailbox.mailer, PICTURES, doorbell=False).sent == sent
    [entry] = pending(drifted)
    assert (entry.message.channel.value, entry.attempts) == ("event", 0)
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 1


def test_without_a_mail_server_mails_stay_and_no_attempt_is_counted(drifted: World) -> None:
    assert drifted.deliver(None, PICTURES).sent == 1
    [entry] = pending(drifted)
    assert (entry.message.channel.value, entry.attempts) == ("mail", 0)


def test_a_mail_that_cannot_be_drawn_holds_up_no_other(drifted: World, mailbox: Mailbox) -> None:
    class Clumsy(ReportPictures):
        def drift(self, current: StoredDecision, earlier: Sequence[StoredDecision]) -> bytes:
            raise ZeroDivisionError("no ink")

    with drifted.store.begin() as work:
        changed = ChampionChanged("2", "1", 2, FIRST, "promoted", "it is better", "the trial")
        work.add_messages(changed.messages(), drifted.clock())
        work.commit()
    delivered = drifted.deliver(mailbox.mailer, Clumsy())
    assert delivered.failed == (f"{DriftDetected.topic} by mail: ZeroDivisionError('no ink')",)
    assert [m["X-Cancellations-Topic"] for m in mailbox.mails()] == [ChampionChanged.topic]
    assert [e.attempts for e in pending(drifted)] == [1]


def test_an_orchestrator_that_is_down_does_not_keep_the_mails(drifted: World, mailbox: Mailbox) -> None:
    drifted.orchestrator.down = True
    delivered = drifted.deliver(mailbox.mailer, PICTURES)
    assert (delivered.sent, len(mailbox.mails())) == (1, 1)
    assert delivered.failed == (f"{DriftDetected.topic} by event: the orchestrator does not answer",)
    drifted.orchestrator.down = False
    drifted.clock.advance(seconds=15)
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 1


def test_a_second_relay_leaves_everything_to_the_first_until_that_one_is_dead(drifted: World, mailbox: Mailbox) -> None:
    drifted.acquire(LEASE, "another relay", LEASE_TTL)
    busy = drifted.deliver(mailbox.mailer, PICTURES)
    assert (busy.busy, busy.sent, len(pending(drifted))) == (True, 0, 2)
    drifted.clock.now += LEASE_TTL
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 2


def test_a_death_between_sending_and_noting_it_sends_again_with_the_same_id(drifted: World, mailbox: Mailbox) -> None:
    with pytest.raises(PowerCut):
        drifted.deliver(mailbox.mailer, PICTURES, doorbell=False, store=CutOff(drifted.store, "mark_sent"))
    assert len(mailbox.mails()) == 1
    drifted.clock.now += LEASE_TTL
    assert drifted.deliver(mailbox.mailer, PICTURES).sent == 2
    assert len(mailbox.mails()) == 1  # the mailbox keeps one of an id


def test_mail_of_a_trial_carries_its_evidence_as_it_stands_and_its_picture(serving: World, mailbox: Mailbox) -> None:
    ended = replace(TRIAL, state=TrialState.DECLINED)
    tell(serving, TrialEnded(ended.trial_id, "trial", "declined", "1", "2", FIRST, ended.reasons), ended)
    assert serving.deliver(mailbox.mailer, PICTURES).failed == ()
    [read] = mailbox.mails()
    [picture] = [p for p in read.walk() if p.get_content_type() == "image/png"]
    assert picture.get_filename() == "trial.png"
    assert picture.get_content() == PICTURES.trial(ended)
    body = read.get_body(("plain",))
    assert body is not None and "THE TRIAL" in body.get_content() and "900 bookings" in body.get_content()


def test_mail_of_a_trial_that_is_not_at_hand_leaves_without_its_evidence(serving: World) -> None:
    tell(serving, ChampionChanged("2", "1", 2, FIRST, "promoted", "it is better", "the trial", "trial-of-elsewhere"))
    post = Post()
    assert serving.deliver(post, PICTURES).failed == ()
    [letter] = post.letters
    assert (letter.trial, letter.picture, letter.decision) == (None, None, None)


@pytest.mark.parametrize(
    ("state", "label"), [(TrialState.AWAITING, ["Answer in Prefect"]), (TrialState.PROMOTED, [])], ids=str
)
def test_an_approval_links_to_the_run_that_asks_as_long_as_it_does(
    serving: World, state: TrialState, label: list[str]
) -> None:
    asked = ApprovalNeeded(TRIAL.trial_id, "1", "2", FIRST, serving.clock(), TRIAL.reasons)
    tell(serving, asked, replace(TRIAL, state=state))
    post = Post()
    deliver(
        serving.store,
        doorbell=None,
        mailer=post,
        pictures=PICTURES,
        registry=serving.registry,
        max_attempts=3,
        owner="relay",
        clock=serving.clock,
        run_address=lambda run: f"http://prefect.example/{run}",
    )
    [letter] = post.letters
    assert [k for k, v in letter.links.items() if v == "http://prefect.example/run-1"] == label
