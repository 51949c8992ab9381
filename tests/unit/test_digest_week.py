"""The weekly digest: which days it tells, and that its words say what needs a person in ten seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cancellations.domain.digest import (
    WEEK,
    WEEKDAYS,
    Asked,
    BrokenDay,
    Champion,
    Look,
    Mailed,
    Span,
    Taken,
    Tried,
    due,
    next_day,
)
from cancellations.domain.events import Channel, DataBroken, DigestPublished, Message, RetrainFailed, TrialEnded
from cancellations.domain.promotion import Change
from cancellations.domain.retraining import (
    Action,
    ColumnDrift,
    Decision,
    MonitorReport,
    RequestState,
    Signal,
    Verdict,
    Window,
)
from cancellations.errors import BadInput
from cancellations.mail.message import write
from cancellations.mail.wording import words
from cancellations.mail.wording.sentences import Tone, Words
from cancellations.ports import Letter, MessageState, StoredDecision
from cancellations.settings import Mail

SINCE, UNTIL = date(2016, 6, 20), date(2016, 6, 26)
NOW = datetime(2016, 6, 27, 6, 0, tzinfo=UTC)
MAIL = Mail(owners=["ada@hotel.example"])
SERVES = Champion("3", date(2016, 5, 2), date(2016, 5, 20))
QUIET = DigestPublished(
    SINCE,
    UNTIL,
    "",
    champion=SERVES,
    report_id="report-7",
    looks=(Look(UNTIL, "3", 0.0, Action.NONE.value),),
    booked=1_234,
    scored=1_230,
)
TRIAL = Tried("trial", "running", "3", "4", SINCE, UNTIL + 7 * WEEK, 9, 1_656, -0.0184, None, None, None)
BROKEN = BrokenDay(SINCE, 214, 2, "price: out of range in 198 of 201 bookings (usually 0.1%)")


# --- which days -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("today", "weekday", "told", "span"),
    [
        (date(2016, 6, 27), "monday", None, Span(SINCE, UNTIL)),
        (date(2016, 6, 29), "monday", None, Span(SINCE, UNTIL)),
        (date(2016, 6, 26), "monday", None, Span(SINCE - WEEK, UNTIL - WEEK)),
        (date(2016, 6, 27), "monday", UNTIL - WEEK, Span(SINCE, UNTIL)),
        (date(2016, 7, 3), "monday", UNTIL, None),
        (date(2016, 7, 4), "monday", UNTIL, Span(SINCE + WEEK, UNTIL + WEEK)),
        # A machine that slept for three weeks.
        (date(2016, 6, 28), "monday", UNTIL - 3 * WEEK, Span(SINCE - 2 * WEEK, UNTIL)),
        # Another day was chosen: the days between, no day twice.
        (date(2016, 7, 1), "friday", UNTIL, Span(UNTIL + timedelta(days=1), date(2016, 6, 30))),
        # A day of the past.
        (date(2016, 5, 2), "monday", UNTIL, None),
    ],
)
def test_a_digest_tells_whole_weeks_that_are_over(today: date, weekday: str, told: date | None, span: Span) -> None:
    assert due(today, weekday, told) == span


@given(
    start=st.dates(date(2016, 1, 1), date(2016, 12, 31)),
    weekday=st.sampled_from(WEEKDAYS),
    steps=st.lists(st.integers(0, 30), min_size=1, max_size=12),
)
def test_whatever_days_somebody_asks_every_day_is_told_once(start: date, weekday: str, steps: list[int]) -> None:
    told: list[date] = []
    today = start
    for step in steps:
        today += timedelta(days=step)
        span = due(today, weekday, told[-1] if told else None)
        if span is not None:
            assert span.until < today and (today - span.until).days <= 7
            told += [span.since + timedelta(days=n) for n in range(span.days)]
    assert told == sorted(set(told))
    assert told == [told[0] + timedelta(days=n) for n in range(len(told))]
    assert WEEKDAYS[(told[-1] + timedelta(days=1)).weekday()] == weekday


@given(today=st.dates(date(2016, 1, 1), date(2016, 12, 31)), weekday=st.sampled_from(WEEKDAYS))
def test_the_next_day_is_the_first_on_which_another_digest_is_due(today: date, weekday: str) -> None:
    until = due(today, weekday, None)
    assert until is not None
    days = [today + timedelta(days=n) for n in range(1, 9)]
    assert next_day(today, weekday) == next(day for day in days if due(day, weekday, until.until) is not None)


# --- settings -------------------------------------------------------------------------------------


def test_kinds_that_wait_for_a_digest_that_nobody_gets_are_refused() -> None:
    assert Mail(weekly=["trial.ended"]).weekly_topics == (TrialEnded.topic,)
    with pytest.raises(ValidationError, match=r"'trial.end' cannot wait for the digest; the kinds: drift\.detected"):
        Mail(weekly=["trial.end"])
    with pytest.raises(ValidationError, match="cannot wait for the digest"):
        Mail(weekly=["digest.published"])
    for nobody in ({"digest_day": "never"}, {"readers": {"digest.published": []}}):
        assert Mail(**nobody).weekly == []
        with pytest.raises(ValidationError, match=r"weekly keeps trial\.ended for a digest that nobody gets"):
            Mail(weekly=["trial.ended"], **nobody)
    with pytest.raises(ValidationError, match="digest_day"):
        Mail(digest_day="Mon")


def test_the_digest_has_readers_of_its_own() -> None:
    own = MAIL.model_copy(update={"readers": {"digest.published": ["eve@hotel.example"]}})
    assert write(letter(QUIET), own, "", NOW)["To"] == "eve@hotel.example"
    assert write(letter(QUIET), MAIL, "", NOW)["To"] == "ada@hotel.example"


# --- words ----------------------------------------------------------------------------------------


def letter(fact: DigestPublished, told: tuple[Message, ...] = (), stored: StoredDecision | None = None) -> Letter:
    (message,) = fact.messages()
    return Letter(message, stored, told=tuple(Letter(m) for m in told))


def said(fact: DigestPublished) -> Words:
    (message,) = fact.messages()
    return words(message.topic, message.payload)


def parts(mail: EmailMessage) -> tuple[str, str]:
    bodies = [mail.get_body((kind,)) for kind in ("plain", "html")]
    assert all(body is not None for body in bodies)
    text, html = (" ".join(body.get_content().split()) for body in bodies if body is not None)
    return text, html


def looked() -> StoredDecision:
    signals = (
        Signal("column drift", 0.71, 0.5, Verdict.ALARM, 1.0, 900),
        Signal("matured excess loss", None, 0.02, Verdict.NOT_EVALUATED, 2.0, 0, why="300 are too few"),
    )
    column = ColumnDrift("lead_days", "wasserstein", 0.3, 0.1, True, 0.4, "then", "now")
    report = MonitorReport("3", Window(SINCE, UNTIL), 900, 5_000, signals, (column,))
    return StoredDecision("report-7", report, Decision(Action.NONE, ("a reason",)), None, NOW)


def asked(state: RequestState, version: str | None = None) -> tuple[Asked, ...]:
    return (Asked("request-7", UNTIL, state.value, version, "drift confirmed"),)


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({}, "Week to 2016-06-26: champion v3 held, no drift confirmed"),
        ({"since": SINCE - 2 * WEEK}, "3 weeks to 2016-06-26: champion v3 held, no drift confirmed"),
        ({"since": UNTIL - timedelta(days=3)}, "4 days to 2016-06-26: champion v3 held, no drift confirmed"),
        ({"looks": ()}, "Week to 2016-06-26: champion v3 held, no look taken"),
        ({"champion": None, "looks": ()}, "Week to 2016-06-26: no champion yet, no look taken"),
        (
            {"looks": (Look(UNTIL, "3", 1.2, Action.RETRAIN_DRIFT.value),), "trial": TRIAL},
            "Week to 2016-06-26: champion v3 held, drift confirmed, challenger v4 on trial",
        ),
        (
            {"looks": (Look(UNTIL, "3", 1.2, Action.HOLD.value),), "requests": asked(RequestState.FAILED)},
            "Week to 2016-06-26: champion v3 held, a reason to retrain held back, retrain failed",
        ),
        (
            {"broken": (BROKEN,), "booked": 0, "requests": asked(RequestState.WAITING)},
            "Week to 2016-06-26: champion v3 held, no drift confirmed, data broken on 1 day, no bookings, a retrain is"
            " under way",
        ),
        (
            {
                "changes": (
                    Taken(SINCE, Change.PROMOTED.value, "4", "the trial"),
                    Taken(SINCE, Change.RECALIBRATED.value, "5", "a day"),
                    Taken(UNTIL, Change.ROLLED_BACK.value, "3", "the probation"),
                )
            },
            "Week to 2016-06-26: v4 promoted, then rolled back to v3, no drift confirmed",
        ),
        (
            {"changes": (Taken(SINCE, Change.RECALIBRATED.value, "4", "a day"),)},
            "Week to 2016-06-26: recalibrated as v4, no drift confirmed",
        ),
        (
            {"trial": replace(TRIAL, state="awaiting approval", asked_until=NOW)},
            "Week to 2016-06-26: champion v3 held, no drift confirmed, challenger v4 awaits your answer",
        ),
        (
            {"trial": replace(TRIAL, kind="probation", rival="2")},
            "Week to 2016-06-26: champion v3 held, no drift confirmed, v3 on probation",
        ),
    ],
)
def test_the_subject_says_it_all(changes: dict[str, Any], subject: str) -> None:
    fact = replace(QUIET, **changes)
    assert said(fact).subject == subject
    assert write(letter(fact), MAIL, "", NOW)["Subject"] == subject


def test_a_quiet_week_needs_nobody_and_a_week_with_a_question_says_which() -> None:
    (message,) = QUIET.messages()
    assert words(message.topic, message.payload, looked().report).tone is Tone.NEWS  # a signal alarms
    assert said(QUIET).tone is Tone.GOOD and dict(said(QUIET).points)["What needs you"] == "Nothing."
    asks = replace(
        QUIET,
        trial=replace(TRIAL, state="awaiting approval", asked_until=NOW),
        requests=asked(RequestState.FAILED),
        paused="price test",
        held="version 4 was rolled back",
    )
    needs = dict(said(asks).points)["What needs you"]
    assert said(asks).tone is Tone.ATTENTION
    assert needs == (
        "Your answer by 2016-06-27 06:00 UTC: shall v4 serve?; a retrain failed on each of its attempts; promotions"
        " wait until somebody acknowledges a rollback; automatic retraining is paused (price test)."
    )
    commands = [step.command for step in said(asks).steps]
    assert commands == [
        'cancellations promote 4 --reason "…"',
        'cancellations withdraw --reason "…"',
        "cancellations retrain --as-of 2016-06-26",
        "cancellations acknowledge",
        "cancellations status",
        "cancellations report --open",
        "cancellations resume",
    ]


def test_both_parts_tell_how_things_stand_and_what_every_mail_was() -> None:
    mails = (
        *TrialEnded("t", "trial", "rejected", "3", "2", SINCE, ("x",)).messages(),
        *RetrainFailed("request-6", "3", SINCE, ("x",)).messages(),
        *DataBroken(SINCE, 214, ("price: missing",)).messages(),
        Message("of-elsewhere", Channel.MAIL, "cancellations.news", {}),
    )
    fact = replace(
        QUIET,
        trial=TRIAL,
        requests=asked(RequestState.CANDIDATE, "4"),
        broken=(BROKEN,),
        silent=(SINCE, UNTIL),
        serving="4",
        changes=(Taken(SINCE, Change.FIRST.value, "3", "the gate"),),
        weekly=(mails[0].id, mails[3].id),
        at_once=(Mailed(mails[1].id, MessageState.SENT.value), Mailed(mails[2].id, MessageState.DEAD.value)),
    )
    mail = write(letter(fact, mails, looked()), MAIL, "", NOW)
    for body in parts(mail):
        for told in (
            "v3, trained as of 2016-05-02 (55 days old), serves since 2016-05-20",
            "v4 serves",
            "first champion v3, by the gate",
            "challenger v4 against champion v3, since 2016-06-20: v4 saves −0.0184 log loss a booking (no bounds yet)"
            " on 1,656 bookings of 9 days; ends by 2016-08-14",
            "registered v4 (drift confirmed)",
            "1,234 made on these days and loaded, 1,230 of them scored by v3",
            "198 of 201 bookings (usually 0.1%); and 1 more",
            "2 days: 2016-06-20, 2016-06-26",
            "Challenger v2 rejected: champion v3 stays",
            "Champion v3 proved better than challenger v2 in the trial, and stays.",
            "Retrain of 2016-06-20 failed and needs a person: champion v3 stays",
            "given up, never sent:",
            "Bookings of 2016-06-20 look broken: price: missing",
            "news",
            "cannot be read by this version",
            "column drift",
            "300 are too few",
            "nothing to do",
        ):
            assert told in body, told
        # The columns are in the picture, the reasons in the report; whoever got a mail has read its verdict.
        assert "lead_days" not in body and "a reason" not in body
        assert "will not be tried again" not in body
    plain = mail.get_body(("plain",))
    assert plain is not None and max(map(len, plain.get_content().splitlines())) <= 100


def test_a_kind_that_nobody_reads_is_told_only_where_it_waited_for_the_digest() -> None:
    mails = TrialEnded("t", "trial", "rejected", "3", "2", SINCE, ("x",)).messages()
    quiet = Mail(owners=["ada@hotel.example"], readers={"trial.ended": []})
    left = replace(QUIET, at_once=(Mailed(mails[0].id, MessageState.SENT.value),))
    kept = replace(QUIET, weekly=(mails[0].id,))
    told = "Challenger v2 rejected"
    assert all(told not in body for body in parts(write(letter(left, mails), quiet, "", NOW)))
    assert all(told in body for body in parts(write(letter(left, mails), MAIL, "", NOW)))
    assert all(told in body for body in parts(write(letter(kept, mails), quiet, "", NOW)))


def test_values_from_data_are_escaped_and_stay_on_their_line() -> None:
    bad = "<script>alert(1)</script>\r\nBcc: thief@example.org"
    fact = replace(
        QUIET,
        champion=replace(SERVES, version=bad),
        looks=(Look(UNTIL, bad, 0.1, bad),),
        requests=(Asked(bad, UNTIL, RequestState.WAITING.value, None, bad),),
        broken=(replace(BROKEN, first=bad),),
        changes=(Taken(SINCE, Change.FIRST.value, bad, bad),),
        paused=bad,
    )
    mail = write(letter(fact, stored=looked()), MAIL, "", NOW)
    html = mail.get_body(("html",))
    assert html is not None and "<script" not in html.get_content()
    assert html.get_content().count("&lt;script&gt;") >= 6
    assert mail["Bcc"] is None and "\n" not in mail["Subject"]


def test_many_recalibrations_and_many_broken_days_are_counted_not_listed() -> None:
    days = [SINCE + timedelta(days=n) for n in range(7)]
    fact = replace(
        QUIET,
        changes=tuple(Taken(day, Change.RECALIBRATED.value, str(n), "a day") for n, day in enumerate(days)),
        broken=tuple(replace(BROKEN, day=day) for day in days),
        silent=tuple(days),
    )
    for body in parts(write(letter(fact), MAIL, "", NOW)):
        assert "7 times, last on 2016-06-26 as v6" in body
        assert "2 more days: cancellations check shows each" in body
        assert "2016-06-24 and 2 more" in body


def test_a_digest_that_lacks_a_field_says_who_wrote_it() -> None:
    with pytest.raises(BadInput, match="lacks the field"):
        words(DigestPublished.topic, {"since": "2016-06-20", "until": "2016-06-26"})
