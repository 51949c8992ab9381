"""The weekly digest: one for each week, with every mail that waited for it in exactly one."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from world import FIRST, SECOND, WEEK, Clock, CutOff, GivenMonitor, PowerCut, World

from cancellations.domain.checks import Check, DayCheck, Finding
from cancellations.domain.events import (
    DataBroken,
    DigestPublished,
    OutlookPublished,
    RetrainFailed,
    TrialEnded,
)
from cancellations.domain.promotion import Change
from cancellations.domain.retraining import RequestState, RetrainPolicy
from cancellations.mail.smtp import SmtpMailer
from cancellations.ports import Letter, MessageState, OutboxEntry
from cancellations.settings import Mail
from cancellations.store import SqlStore, open_store
from deployments.mailbox import Folder
from monitoring.plots import ReportPictures

PICTURES = ReportPictures()
DAY = timedelta(days=1)
# Champion 1 stands from FIRST on, which is a Sunday.
MONDAY = FIRST + DAY
WEEKLY = (TrialEnded.topic, RetrainFailed.topic)


@dataclass
class Post:
    """Keeps letters as they are handed over, or breaks with each."""

    letters: list[Letter] = field(default_factory=list)
    broken: bool = False

    def send(self, letter: Letter) -> None:
        if self.broken:
            raise ConnectionError("no post today")
        self.letters.append(letter)

    @property
    def topics(self) -> list[str]:
        return [letter.message.topic for letter in self.letters]


def tell(world: World, *facts: Any) -> list[str]:
    with world.store.begin() as work:
        for fact in facts:
            work.add_messages(fact.messages(), world.clock())
        work.commit()
    return [message.id for fact in facts for message in fact.messages()]


def ended(number: int) -> TrialEnded:
    return TrialEnded(f"trial-{number}", "trial", "rejected", "1", str(number), FIRST, ("x",))


def failed(number: int) -> RetrainFailed:
    return RetrainFailed(f"request-{number}", "1", FIRST, ("x",))


def all_mails(world: World) -> list[OutboxEntry]:
    with world.store.begin() as work:
        return work.mails_after(0)


def digests(world: World) -> list[dict[str, Any]]:
    return [e.message.payload for e in all_mails(world) if e.message.topic == DigestPublished.topic]


def states(world: World) -> dict[str, MessageState]:
    return {entry.message.id: entry.state for entry in all_mails(world)}


# --- once for each week ---------------------------------------------------------------------------


def test_a_week_is_told_once_and_the_next_one_when_it_is_over(serving: World) -> None:
    assert serving.digest(FIRST).why == f"nothing to tell yet: there was no champion by {FIRST - WEEK}"
    first = serving.digest(MONDAY)
    assert first.why == f"the digest of {FIRST - WEEK + DAY} to {FIRST} is written; no mail waited for it"
    for day in range(7):
        again = serving.digest(MONDAY + day * DAY)
        assert again.fact is None
        assert again.why == f"told until {FIRST} already; the next digest is due on {MONDAY + WEEK}"
    assert serving.digest(FIRST - 9 * DAY).fact is None  # a day of the past
    assert serving.digest(MONDAY + WEEK).fact is not None
    assert [(d["since"], d["until"]) for d in digests(serving)] == [
        (str(FIRST - WEEK + DAY), str(FIRST)),
        (str(MONDAY), str(FIRST + WEEK)),
    ]


def test_weeks_that_nobody_was_awake_for_are_told_together(serving: World) -> None:
    serving.digest(MONDAY)
    serving.digest(MONDAY + 3 * WEEK + 2 * DAY)
    assert [(d["since"], d["until"]) for d in digests(serving)][1:] == [(str(MONDAY), str(FIRST + 3 * WEEK))]


def test_turned_off_nothing_is_written(serving: World) -> None:
    assert "DIGEST_DAY is never" in serving.digest(MONDAY, weekday=None).why
    assert digests(serving) == []


def test_without_a_champion_a_mail_waits_a_week_at_most(store: SqlStore, tmp_path: Path) -> None:
    world = World(store, None, Clock())  # type: ignore[arg-type]  # a digest asks no registry
    (kept,) = tell(world, failed(1))
    world.clock.advance(days=6)
    assert world.digest(MONDAY, weekly=WEEKLY).fact is None
    world.clock.advance(days=1)
    found = world.digest(MONDAY, weekly=WEEKLY)
    assert found.fact is not None and found.fact.weekly == (kept,) and found.fact.champion is None


# --- mails that wait for it -----------------------------------------------------------------------


def test_mails_of_kinds_that_wait_are_passed_over_and_then_told_in_the_digest(serving: World) -> None:
    serving.digest(MONDAY)
    first, second, at_once = tell(serving, ended(2), failed(3), DataBroken(FIRST, 9, ("price: missing",)))
    post = Post()
    assert serving.deliver(post, PICTURES, weekly=WEEKLY).failed == ()
    assert post.topics == [DigestPublished.topic, DataBroken.topic]
    serving.clock.advance(days=30)
    assert serving.deliver(post, PICTURES, weekly=WEEKLY).sent == 0

    found = serving.digest(MONDAY + WEEK, weekly=WEEKLY)
    assert found.why.endswith("it tells 2 mails that waited")
    assert found.fact is not None and found.fact.weekly == (first, second)
    assert [(m.id, m.state) for m in found.fact.at_once] == [(at_once, "sent")]
    assert {states(serving)[name] for name in (first, second)} == {MessageState.TOLD}
    serving.deliver(post, PICTURES, weekly=WEEKLY)
    assert post.topics == [DigestPublished.topic, DataBroken.topic, DigestPublished.topic]
    assert [letter.message.id for letter in post.letters[-1].told] == [first, second, at_once]
    # Taken out of the kinds that wait by now: what was told is told.
    serving.deliver(post, PICTURES)
    assert len(post.letters) == 3


def test_a_kind_that_waits_no_longer_is_mailed_at_once(serving: World) -> None:
    (kept,) = tell(serving, ended(2))
    post = Post()
    serving.deliver(post, PICTURES, weekly=WEEKLY)
    assert post.letters == []
    serving.deliver(post, PICTURES)
    assert [letter.message.id for letter in post.letters] == [kept]
    found = serving.digest(MONDAY, weekly=())
    assert found.fact is not None and found.fact.weekly == () and [m.id for m in found.fact.at_once] == [kept]


def test_a_mail_that_waited_before_its_kind_did_is_told_too(serving: World) -> None:
    """Its server was down over a digest; then somebody chose that its kind may wait."""
    (late,) = tell(serving, ended(2))
    serving.deliver(Post(broken=True), PICTURES)
    serving.digest(MONDAY)
    found = serving.digest(MONDAY + WEEK, weekly=WEEKLY)
    assert found.fact is not None and found.fact.weekly == (late,)


def test_a_digest_that_no_server_took_is_told_again_with_all_that_it_told(serving: World) -> None:
    kept, _ = tell(serving, ended(2), replace(ended(3), kind="probation", state="expired"))
    serving.digest(MONDAY, weekly=WEEKLY[:1])
    serving.deliver(Post(broken=True), PICTURES, max_attempts=1, weekly=WEEKLY)
    later = tell(serving, ended(4))
    assert serving.digest(MONDAY + DAY, weekly=WEEKLY).fact is None  # not before the next week is over
    found = serving.digest(MONDAY + WEEK, weekly=WEEKLY)
    assert found.fact is not None
    assert (found.fact.since, found.fact.until) == (FIRST - WEEK + DAY, FIRST + WEEK)
    assert found.fact.weekly[0] == kept and set(later) < set(found.fact.weekly) and len(found.fact.weekly) == 3
    assert [m.state for m in found.fact.at_once] == ["dead"]  # the digest that did not arrive
    post = Post()
    serving.deliver(post, PICTURES, weekly=WEEKLY)
    assert post.topics == [DigestPublished.topic]


def test_the_morning_outlook_is_nobodys_news(serving: World) -> None:
    tell(serving, OutlookPublished(FIRST, "1", 0.8, "€", "", ("ada@hotel.example",), 0, (), {}, {}))
    found = serving.digest(MONDAY)
    assert found.fact is not None and found.fact.at_once == ()


def test_of_an_old_home_the_first_digest_lists_a_week_of_mails(serving: World) -> None:
    tell(serving, ended(2))
    serving.clock.advance(days=7)
    (young,) = tell(serving, ended(3))
    found = serving.digest(MONDAY)
    assert found.fact is not None and [m.id for m in found.fact.at_once] == [young]


# --- all or nothing -------------------------------------------------------------------------------


def test_a_death_at_any_moment_leaves_all_of_it_or_nothing(serving: World) -> None:
    kept = tell(serving, ended(2), failed(3))
    for nth in range(1_000):
        try:
            found = serving.digest(MONDAY, weekly=WEEKLY, store=CutOff(serving.store, None, nth=nth))
            break
        except PowerCut:
            assert digests(serving) == []
            assert set(states(serving).values()) == {MessageState.PENDING}
    assert nth > 15 and found.fact is not None and found.fact.weekly == tuple(kept)
    assert len(digests(serving)) == 1
    assert {states(serving)[name] for name in kept} == {MessageState.TOLD}


def test_of_runs_at_once_one_writes_the_digest_with_every_mail(serving: World, store_url: str) -> None:
    kept = tell(serving, ended(2), failed(3))
    start, results = threading.Barrier(4), []

    def run() -> None:
        own = open_store(store_url)
        start.wait()
        try:
            results.append(replace(serving, store=own).digest(MONDAY, weekly=WEEKLY))
        except Exception as error:
            results.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([r for r in results if r.fact is not None]) == 1
    [written] = digests(serving)
    assert written["weekly"] == kept
    assert {states(serving)[name] for name in kept} == {MessageState.TOLD}


def test_a_mail_that_comes_while_the_week_is_summed_up_is_in_it_or_waits(serving: World) -> None:
    @dataclass
    class Crossed(CutOff):
        """Somebody writes a mail just before the digest is."""

        def call(self, method: str) -> None:
            if method == "acquire_lease":
                tell(serving, ended(9))

    found = serving.digest(MONDAY, weekly=WEEKLY, store=Crossed(serving.store, None))
    assert found.fact is not None and len(found.fact.weekly) == 1


# --- what it tells --------------------------------------------------------------------------------


@pytest.fixture
def watched(challenged: World) -> World:
    """A look without drift and one with it; the second mailed and requested nothing, since a trial runs."""
    challenged.score(until=SECOND)
    policy = RetrainPolicy(confirm_k=1, confirm_n=1, min_new_labels=0)
    challenged.monitor(GivenMonitor([SECOND]), until=SECOND, after=FIRST, policy=policy)
    return challenged


def test_it_tells_champion_looks_trial_and_bookings_of_the_week(watched: World) -> None:
    found = watched.digest(SECOND + DAY).fact
    assert found is not None and (found.since, found.until) == (SECOND - WEEK + DAY, SECOND)
    assert found.champion is not None
    assert (found.champion.version, found.champion.trained_as_of, found.champion.serves_since) == ("1", FIRST, FIRST)
    [look] = found.looks
    assert (look.end, look.champion, look.action) == (SECOND, "1", "hold") and look.evidence == pytest.approx(1.5)
    with watched.store.begin() as work:
        [last, _] = work.decisions()
        made = int(work.booked_days(SECOND - WEEK, SECOND).sum())
        scored = work.scored("1", SECOND - WEEK + DAY, SECOND)
    assert found.report_id == last.report_id
    assert (found.booked, found.scored) == (made, len(scored)) and found.scored == made > 100
    trial = watched.open_trial()
    assert trial is not None and found.trial is not None
    assert (found.trial.rival, found.trial.state, found.trial.last_day) == ("2", "running", trial.last_day)
    assert [(a.as_of, a.state, a.version) for a in found.requests] == [(SECOND, "candidate", "2")]
    assert (found.silent, found.broken, found.changes, found.paused, found.held) == ((), (), (), None, None)


def test_it_tells_changes_of_champion_and_who_serves_since(watched: World) -> None:
    watched.promote("2", SECOND)
    found = watched.digest(SECOND + DAY).fact
    assert found is not None and found.champion is not None
    assert [(c.as_of, c.change, c.champion, c.by) for c in found.changes] == [
        (SECOND, Change.PROMOTED.value, "2", "ada")
    ]
    assert (found.champion.version, found.champion.serves_since, found.serving) == ("2", SECOND, None)
    assert found.trial is not None and found.trial.kind == "probation"
    # The next one tells what came since, also of a day that the last one told.
    watched.clock.advance(hours=1)
    watched.roll_back(SECOND)
    following = watched.digest(SECOND + DAY + WEEK).fact
    assert following is not None and [c.change for c in following.changes] == [Change.ROLLED_BACK.value]
    assert following.held is not None


def test_a_change_of_after_the_week_is_told_as_who_serves_since(watched: World) -> None:
    watched.promote("2", SECOND + DAY)
    found = watched.digest(SECOND + DAY).fact
    assert found is not None and found.champion is not None
    assert (found.champion.version, found.serving, found.changes) == ("1", "2", ())


def test_it_tells_broken_and_silent_days_and_a_request_until_it_has_ended(watched: World) -> None:
    broken = SECOND - 2 * DAY
    finding = Finding("price", Check.MISSING, 9, 10, 0.001, 1e-9)
    with watched.store.begin() as work:
        for day in (broken - WEEK, broken, SECOND + DAY):
            work.add_check(DayCheck(day, 10, 60, (finding, finding)), watched.clock())
        work.add_check(DayCheck(SECOND, 10, 60), watched.clock())
        work.commit()
    watched.pause("price test")
    request = watched.automatic(SECOND)
    found = watched.digest(SECOND + DAY).fact
    assert found is not None and found.paused == "price test"
    assert [(b.day, b.bookings, b.findings, b.first) for b in found.broken] == [(broken, 10, 2, str(finding))]
    assert ("waiting", None) in [(a.state, a.version) for a in found.requests]
    watched.update(request, state=RequestState.FAILED)
    following = watched.digest(SECOND + DAY + WEEK).fact
    assert following is not None
    assert [(a.request_id, a.state) for a in following.requests] == [(request.request_id, "failed")]
    # Nothing was loaded for the week after.
    assert (following.booked, following.scored, len(following.silent), following.looks) == (0, 0, 7, ())
    third = watched.digest(SECOND + DAY + 2 * WEEK).fact
    assert third is not None and third.requests == ()


def test_a_look_that_was_taken_late_is_in_the_next_one(challenged: World) -> None:
    challenged.score(until=SECOND)
    first = challenged.digest(SECOND + DAY).fact
    assert first is not None and first.looks == () and first.report_id is None
    challenged.clock.advance(hours=1)
    challenged.monitor(GivenMonitor(), until=SECOND, after=SECOND - WEEK)
    following = challenged.digest(SECOND + DAY + WEEK).fact
    assert following is not None and [look.end for look in following.looks] == [SECOND]


def test_it_leaves_by_a_real_server_with_the_picture_of_the_last_look_and_no_page(
    watched: World, tmp_path: Path
) -> None:
    kept, *_ = tell(watched, ended(7), failed(8))
    watched.deliver(Post(), PICTURES, weekly=(TrialEnded.topic,))
    watched.digest(SECOND + DAY, weekly=(TrialEnded.topic,))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Controller(Folder(tmp_path / "outbox"), hostname="127.0.0.1", port=port, server_hostname="localhost")
    server.start()
    try:
        mailer = SmtpMailer(Mail(port=port, timeout_seconds=5, owners=["ada@hotel.example"], weekly=["trial.ended"]))
        assert watched.deliver(mailer, PICTURES, weekly=(TrialEnded.topic,)).failed == ()
        assert watched.deliver(mailer, PICTURES, weekly=(TrialEnded.topic,)).sent == 0
    finally:
        server.stop()
    [path] = (tmp_path / "outbox").glob("*.eml")
    read = message_from_bytes(path.read_bytes(), policy=policy.default)
    assert isinstance(read, EmailMessage)
    assert read["Subject"] == (
        f"Week to {SECOND}: champion v1 held, a reason to retrain held back, challenger v2 on trial"
    )
    assert [p.get_filename() for p in read.walk() if p.get_content_type() == "image/png"] == ["drift.png"]
    assert list(read.iter_attachments()) == []
    body = read.get_body(("plain",))
    assert body is not None
    text = " ".join(body.get_content().split())
    assert "KEPT FOR THIS DIGEST - Challenger v7 rejected: champion v1 stays" in text
    assert f"Retrain of {FIRST} failed and needs a person" in text.partition("MAILED AT ONCE")[2]
    assert "matured excess loss" in text and states(watched)[kept] is MessageState.TOLD
