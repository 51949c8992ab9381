"""What is too old goes, what anything still reads stays; counted first, on both databases."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from world import World

from cancellations.domain import reservation
from cancellations.domain.comparison import SequencePolicy
from cancellations.domain.events import Channel, DigestPublished, Message
from cancellations.domain.labels import LabelRule
from cancellations.domain.promotion import Change, Kind, Mode, Trial, TrialState
from cancellations.domain.retention import RetentionPolicy
from cancellations.domain.retraining import Action, Decision, MonitorReport, RequestState, RetrainRequest, Window
from cancellations.ports import StoredDecision, UnitOfWork
from cancellations.store.integrity import Integrity
from cancellations.usecases.retain import Folders, Retained, in_play, retain

TODAY = date(2024, 12, 31)
NOW = datetime(2024, 12, 31, 12, tzinfo=UTC)
# Matured 200 days and 100 days ago.
OLD, YOUNG = TODAY - timedelta(days=201), TODAY - timedelta(days=101)
POLICY = RetentionPolicy(score_days=150, report_days=150, mail_days=150)
NOTHING = Retained(0, 0, 0, 0, 0)


def clean(
    world: World, folder: Path, policy: RetentionPolicy = POLICY, *, dry_run: bool = False, rows: int = 3
) -> Retained:
    return retain(
        world.store,
        world.registry,
        Folders(folder / "outlook", folder / "outbox"),
        policy,
        LabelRule(),
        as_of=TODAY,
        clock=lambda: NOW,
        chunk_rows=rows,
        dry_run=dry_run,
    )


def bookings(ids: str, arrival: date) -> pd.DataFrame:
    given = {
        "reservation_id": list(ids),
        "hotel": "city",
        "booked_on": str(arrival - timedelta(days=20)),
        "arrival_on": str(arrival),
        "weekend_nights": 1,
        "week_nights": 2,
        "adults": 2,
    }
    return reservation.coerce(pd.DataFrame(given)).assign(group_size=1.0)


def stand(work: UnitOfWork, champion: str, challenger: str | None = None) -> None:
    work.change_standing(
        work.standing(),
        champion=champion,
        challenger=challenger,
        change=Change.PROMOTED,
        reason="told by the test",
        by="the test",
        as_of=TODAY,
        now=NOW,
    )


def a_trial(epoch: int, opened_on: date = TODAY) -> Trial:
    return Trial(
        trial_id="t",
        kind=Kind.TRIAL,
        champion="3",
        rival="4",
        epoch=epoch,
        opened_on=opened_on,
        cohort_after=opened_on,
        last_day=opened_on + timedelta(days=56),
        mode=Mode.AUTO,
        serve_share=0.5,
        sequence=SequencePolicy(),
        request_id="r",
    )


@pytest.fixture
def house(serving: World) -> World:
    """Versions 1, 2 and 3 were champions one after the other, 4 is on trial; 5 was tried once. All scored all."""
    with serving.store.begin() as work:
        work.upsert_reservations(pd.concat([bookings("abcdefg", OLD), bookings("xyz", YOUNG)]))
        for version in "123":
            stand(work, version)
        for version in "12345":
            scores = pd.DataFrame({"reservation_id": list("abcdefgxyz"), "probability": 0.25})
            work.add_predictions(version, scores, OLD, NOW)
        # All ten are open on that day: the champion's scores are served.
        work.serve(OLD - timedelta(days=1), NOW)
        stand(work, "3", "4")
        work.add_trial(a_trial(work.standing().epoch), NOW)
        work.commit()
    return serving


def scored(world: World, version: str) -> str:
    with world.store.begin() as work:
        return "".join(sorted(work.predictions(version, pd.Series(list("abcdefgxyz"))).index))


def sound(world: World) -> bool:
    with world.store.connection() as connection:
        told = [f.what for f in Integrity(connection).findings() if "served" in f.what or "belong to none" in f.what]
    return told == []


def test_old_scores_of_versions_that_serve_no_more_go_and_all_others_stay(house: World, tmp_path: Path) -> None:
    counted = clean(house, tmp_path, dry_run=True)
    assert counted.scores == 2 * 7
    assert all(scored(house, version) == "abcdefgxyz" for version in "12345")
    assert clean(house, tmp_path) == counted
    # 2 is the champion to go back to; 3 and 4 are in the running trial.
    assert {version: scored(house, version) for version in "12345"} == {
        **dict.fromkeys("234", "abcdefgxyz"),
        **dict.fromkeys("15", "xyz"),
    }
    assert sound(house)
    assert clean(house, tmp_path) == NOTHING


def test_a_score_that_was_served_goes_with_what_was_served_of_it(serving: World, tmp_path: Path) -> None:
    with serving.store.begin() as work:
        work.upsert_reservations(bookings("ab", OLD))
        work.add_predictions("1", pd.DataFrame({"reservation_id": ["a", "b"], "probability": 0.25}), OLD, NOW)
        assert work.serve(OLD - timedelta(days=1), NOW) == 2
        stand(work, "2")
        stand(work, "3")
        work.commit()
    assert clean(serving, tmp_path, rows=1).scores == 2
    assert sound(serving)
    with serving.store.begin() as work:
        assert work.served(OLD - timedelta(days=1)).empty
        assert work.booked(["a", "b"], OLD).keys() == {"a", "b"}


def test_versions_of_a_running_trial_are_in_play_whoever_stands(house: World) -> None:
    with house.store.begin() as work:
        assert in_play(work) == {"2", "3", "4"}
        trial = work.open_trial()
        assert trial is not None
        work.update_trial(replace(trial, state=TrialState.REJECTED), trial.state, NOW)
        stand(work, "3")
        assert in_play(work) == {"2", "3"}


def test_what_is_told_to_be_kept_for_ever_is_not_even_counted(house: World, tmp_path: Path) -> None:
    assert clean(house, tmp_path, RetentionPolicy()) == Retained(None, None, None, None, None)
    assert all(scored(house, version) == "abcdefgxyz" for version in "12345")


# --- mails ----------------------------------------------------------------------------------------


def mail(number: int, topic: str = "cancellations.trial.ended", channel: Channel = Channel.MAIL) -> Message:
    return Message(f"m{number}", channel, topic, {"number": number})


def post(world: World, days_ago: int, *messages: Message, sent: bool = True) -> None:
    then = NOW - timedelta(days=days_ago)
    with world.store.begin() as work:
        work.add_messages(messages, then)
        for message in messages if sent else ():
            work.mark_sent(message.id, then)
        work.commit()


def left(world: World) -> set[str]:
    with world.store.begin() as work:
        return {entry.message.id for entry in work.messages([f"m{n}" for n in range(10)])}


def test_old_mails_go_those_that_wait_stay_and_so_do_events(serving: World, tmp_path: Path) -> None:
    post(serving, 200, mail(0), mail(1, channel=Channel.EVENT))
    post(serving, 200, mail(2), sent=False)
    post(serving, 100, mail(3))
    assert clean(serving, tmp_path, dry_run=True).mails == 1
    assert left(serving) == {"m0", "m1", "m2", "m3"}
    assert clean(serving, tmp_path).mails == 1
    assert left(serving) == {"m1", "m2", "m3"}


def test_what_the_next_digest_looks_at_stays(serving: World, tmp_path: Path) -> None:
    post(serving, 300, mail(0))
    post(serving, 290, mail(1, DigestPublished.topic))
    post(serving, 200, mail(2))
    with serving.store.begin() as work:
        # Nobody got this one: the next tells its days again, from the one before on.
        work.add_messages([mail(3, DigestPublished.topic)], NOW - timedelta(days=190))
        work.mark_failed("m3", "no such server", None)
        work.commit()
    assert clean(serving, tmp_path).mails == 1
    assert left(serving) == {"m1", "m2", "m3"}


def test_mails_of_a_trial_that_runs_stay(house: World, tmp_path: Path) -> None:
    with house.store.begin() as work:
        trial = work.open_trial()
        assert trial is not None
        work.update_trial(replace(trial, state=TrialState.REJECTED), trial.state, NOW)
        long_ago = replace(a_trial(work.standing().epoch, TODAY - timedelta(days=250)), trial_id="t2")
        work.add_trial(long_ago, NOW)
        work.commit()
    post(house, 260, mail(0))
    post(house, 240, mail(1))
    assert clean(house, tmp_path).mails == 1
    assert left(house) == {"m1"}


def test_files_of_old_mails_and_mornings_go_and_others_are_left_alone(serving: World, tmp_path: Path) -> None:
    old, young = TODAY - timedelta(days=160), TODAY - timedelta(days=10)
    for folder in (old.isoformat(), young.isoformat(), "mine", "2020-01-01-mine"):
        (tmp_path / "outlook" / folder).mkdir(parents=True)
        (tmp_path / "outlook" / folder / "nights.csv").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "outlook" / "2020-02-02").symlink_to(elsewhere)
    (tmp_path / "outbox").mkdir()
    for name, days in (("a.eml", 160), ("b.eml", 10), ("notes.txt", 160)):
        path = tmp_path / "outbox" / name
        path.touch()
        at = (NOW - timedelta(days=days)).timestamp()
        os.utime(path, (at, at))
    counted = clean(serving, tmp_path, dry_run=True)
    assert (counted.outlooks, counted.mail_files) == (1, 1)
    assert (tmp_path / "outlook" / old.isoformat()).is_dir()
    assert clean(serving, tmp_path) == counted
    kept = {path.name for path in (*(tmp_path / "outlook").iterdir(), *(tmp_path / "outbox").iterdir())}
    assert kept == {young.isoformat(), "mine", "2020-01-01-mine", "2020-02-02", "b.eml", "notes.txt"}
    assert elsewhere.is_dir()


# --- reports --------------------------------------------------------------------------------------


def decided(world: World, report_id: str, end: date, tmp_path: Path) -> None:
    report = MonitorReport("1", Window(end - timedelta(days=27), end), 300, 5000, ())
    with world.store.begin() as work:
        work.add_decision(StoredDecision(report_id, report, Decision(Action.NONE, ("quiet",)), None, NOW))
        work.commit()
    page = tmp_path / "evidently.html"
    page.write_bytes(b"page")
    world.registry.log_report("1", report_id, [page])


def test_pages_of_old_windows_go_and_their_decisions_stay(serving: World, tmp_path: Path) -> None:
    decided(serving, "old", TODAY - timedelta(days=160), tmp_path)
    decided(serving, "asked", TODAY - timedelta(days=155), tmp_path)
    decided(serving, "young", TODAY - timedelta(days=10), tmp_path)
    with serving.store.begin() as work:
        # Not ended yet: whoever looks after it follows the link in its mail.
        work.add_request(RetrainRequest("r1", TODAY, "drift", RequestState.WAITING, report_id="asked"), NOW)
        work.commit()
    assert clean(serving, tmp_path, dry_run=True).reports == 1
    assert serving.registry.report_page("1", "old") == b"page"
    assert clean(serving, tmp_path).reports == 1
    assert {name: serving.registry.report_page("1", name) for name in ("old", "asked", "young")} == {
        "old": None,
        "asked": b"page",
        "young": b"page",
    }
    with serving.store.begin() as work:
        assert {stored.report_id for stored in work.decisions()} == {"old", "asked", "young"}
    assert clean(serving, tmp_path) == NOTHING
