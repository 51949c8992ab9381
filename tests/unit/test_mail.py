"""Mails: each tells its fact completely, and nothing in the data can break out of its place."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cancellations.domain.comparison import SequencePolicy, Step
from cancellations.domain.events import (
    FACTS,
    OWNERS_MAILS,
    AliasMoved,
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    Channel,
    DataBroken,
    DigestPublished,
    DriftDetected,
    Fact,
    FlowFailed,
    FlowSilent,
    Message,
    OutlookPublished,
    RetrainDue,
    RetrainFailed,
    RetrainOverdue,
    RetrainRejected,
    SignalAlarmed,
    SourceSilent,
    TrialDoubted,
    TrialEnded,
)
from cancellations.domain.promotion import TRANSITIONS, Change, Doubt, Kind, Mode, Trial, TrialState
from cancellations.domain.retraining import (
    Action,
    ColumnDrift,
    Decision,
    MonitorReport,
    Signal,
    Verdict,
    Window,
)
from cancellations.errors import BadInput
from cancellations.mail.message import write
from cancellations.mail.wording import WORDING, words
from cancellations.mail.wording.sentences import Tone, Words
from cancellations.ports import Letter, StoredDecision
from cancellations.settings import Mail

START, END = date(2016, 5, 2), date(2016, 5, 29)
NOW = datetime(2016, 5, 30, 6, 0, tzinfo=UTC)
MAIL = Mail(sender="Model <model@hotel.example>", owners=["ada@hotel.example", "Bo <bo@hotel.example>"])
PICTURE = b"\x89PNG\r\n\x1a\n and the rest"
REASONS = ("evidence 0.71 of 0.5 needed", "2 of the last 3 windows drifted")

FACT_EXAMPLES: tuple[Fact, ...] = (
    DriftDetected("request-7", "report-7", "1", START, END, REASONS),
    RetrainDue("request-7", "report-7", "1", START, END, REASONS),
    ChallengerRegistered("request-7", "2", "1", END, REASONS),
    RetrainRejected("request-7", "1", END, REASONS),
    RetrainFailed("request-7", None, END, REASONS),
    ChampionChanged("2", "1", 3, END, Change.PROMOTED.value, "better by far", "the trial", "trial-2-2", REASONS),
    ApprovalNeeded("trial-2-2", "1", "2", END, NOW + timedelta(days=3), REASONS),
    TrialEnded("trial-2-2", "trial", "rejected", "1", "2", END, REASONS),
    SignalAlarmed(
        "report-7",
        "1",
        START,
        END,
        "in-flight cancellations",
        "online: 35.1% predicted to be cancelled",
        "38.2% expected by now, more than foretold",
        REASONS,
    ),
    DataBroken(END, 1_200, ("price: missing in 1,200 of 1,200 bookings (usually 0.1%)", "meal: one value for all")),
    SourceSilent(END, 4, 1),
    RetrainOverdue(
        "request-7", "1", END, NOW, 64, ("no worker has taken it since 2016-05-30 06:00 UTC", "attempt 1: x")
    ),
    TrialDoubted("trial-2-2", "trial", "arms", "1", "2", END, ("arms do not have their sizes",)),
    AliasMoved("champion", "1", "2", 3, NOW, ("alias 'champion' was moved", "put back: the ledger says who serves")),
    FlowFailed("score", "run-7", "score 2016-05-30", "Failed", "ServiceDown: MLflow does not answer", NOW),
    FlowSilent("ingest", NOW - timedelta(hours=3), 3),
)
PROMOTED, ASKED, ENDED, IN_FLIGHT, BROKEN, SILENT, LATE, DOUBTED, MOVED, FELL, HUSHED = FACT_EXAMPLES[5:]
BY_HAND = ChampionChanged("2", "1", 3, END, Change.PROMOTED.value, "new price list.", "Ada")
BACK = ChampionChanged("1", "2", 4, END, Change.ROLLED_BACK.value, "it is better", "the probation", "p-2-3", REASONS)
SHIFTED = ChampionChanged(
    "2", "1", 4, END, Change.RECALIBRATED.value, "shift +0.310 of version 1", "a day", None, REASONS
)
GUARDED = "scatter of differences on the first 200 bookings: fired, 1.210 (usually 0.310; fires above 0.420)"
BACK_BY_GUARD = ChampionChanged(
    "1", "2", 4, END, Change.ROLLED_BACK.value, GUARDED, "the guard", "p-2-3", (GUARDED, "estimated loss on the first")
)
BACK_BY_HAND = ChampionChanged("1", "2", 4, END, Change.ROLLED_BACK.value, "nonsense in May", "Ada")


def trial(
    kind: Kind = Kind.TRIAL,
    state: TrialState = TrialState.PROMOTED,
    step: Step | None = Step(END, 3_475, 0.0123, 0.001, 0.0236),  # noqa: B008  (frozen)
    **changes: object,
) -> Trial:
    """Version 2 against champion 1, or champion 2 on probation against 1; `step` is the deciding one."""
    champion, rival = ("1", "2") if kind is Kind.TRIAL else ("2", "1")
    evidence = () if step is None else (Step(START, 100, 0.5, None, None), step)
    share = 0.3 if kind is Kind.TRIAL else 0.0
    last, policy = END + timedelta(days=9), SequencePolicy()
    made = Trial("trial-2-2", kind, champion, rival, 2, START, START, last, Mode.AUTO, share, policy, state=state)
    return replace(made, **({"evidence": evidence, "decided_on": END} | changes))  # type: ignore[arg-type]


def said(fact: Fact, tried: Trial | None = None) -> Words:
    message = letter(fact).message
    return words(message.topic, message.payload, None, tried)


def told(fact: Fact, tried: Trial | None = None) -> str:
    return " ".join(sentence for _, sentence in said(fact, tried).points)


def commands(fact: Fact, tried: Trial | None = None) -> list[str]:
    return [step.command for step in said(fact, tried).steps]


def column(name: str, weight: float = 0.1, drifted: bool = True, **changes: object) -> ColumnDrift:
    known = ColumnDrift(name, "wasserstein", 0.312, 0.1, drifted, weight, f"{name} then", f"{name} now")
    return replace(known, **changes)  # type: ignore[arg-type]


def decision(*columns: ColumnDrift, loss: Verdict = Verdict.ALARM) -> StoredDecision:
    signals = (
        Signal("column drift", 0.71, 0.5, Verdict.ALARM, 1.0, 4_210),
        Signal("domain classifier", 0.75, 0.8, Verdict.WATCH, 1.0, 4_210),
        Signal("matured excess loss", 0.041, 0.02, loss, 1.5, 900, why="too few" if loss.startswith("not") else ""),
    )
    report = MonitorReport("1", Window(START, END), 4_210, 5_000, signals, columns)
    return StoredDecision("report-7", report, Decision(Action.RETRAIN_DRIFT, REASONS), "request-7", NOW)


def letter(fact: Fact = FACT_EXAMPLES[0], stored: StoredDecision | None = None, **more: object) -> Letter:
    message = next(m for m in fact.messages() if m.channel is Channel.MAIL)
    return Letter(message, stored, **more)  # type: ignore[arg-type]


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    content = body.get_content()
    assert isinstance(content, str)
    return content


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_fact_that_leaves_by_mail_has_words_and_an_example_here_and_no_other_has() -> None:
    by_mail = {fact for fact in FACTS if Channel.MAIL in fact.channels}
    assert set(WORDING) == {fact.topic for fact in by_mail}
    # The morning's outlook and the digest are no decisions: test_scores_out.py and test_digest.py look at their mails.
    assert {type(f) for f in FACT_EXAMPLES} == by_mail - {OutlookPublished, DigestPublished}


@pytest.mark.parametrize("fact", FACT_EXAMPLES, ids=lambda f: type(f).__name__)
def test_text_part_tells_the_fact_and_how_to_stop_by_itself(fact: Fact) -> None:
    stored = decision(column("lead_days")) if hasattr(fact, "report_id") else None
    mail = write(letter(fact, stored, links={"Runs": "http://127.0.0.1:4200/runs"}), MAIL, "", NOW)
    text = part(mail, "plain")
    assert text.splitlines()[0].strip() and "WHAT YOU CAN DO" not in text.splitlines()[0]
    for needed in (
        "How much it matters",
        "What the system did",
        "cancellations status",
        "http://127.0.0.1:4200/runs",
    ):
        assert needed in text
    assert any(f'cancellations {stop} --reason "…"' in text for stop in ("pause", "rollback", "withdraw", "promote 2"))
    assert all(reason in flat(text) for reason in getattr(fact, "reasons", ()))
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("fact", FACT_EXAMPLES, ids=lambda f: type(f).__name__)
def test_text_and_html_say_the_same_sentences(fact: Fact) -> None:
    mail = write(letter(fact), MAIL, "", NOW)
    verdict = flat(part(mail, "plain").split("\n\n")[0])
    assert verdict in part(mail, "html")


@pytest.mark.parametrize(
    ("fact", "subject"),
    [
        (
            FACT_EXAMPLES[0],
            "Drift confirmed in bookings of 2016-05-02 to 2016-05-29: retrain requested (champion v1)",
        ),
        (FACT_EXAMPLES[2], "Challenger v2 is on trial against champion v1"),
        (
            BROKEN,
            "Bookings of 2016-05-29 look broken: price: missing in 1,200 of 1,200 bookings (usually 0.1%); and 1 more",
        ),
        (
            LATE,
            "Retrain of 2016-05-29 is overdue: no worker has taken it since 2016-05-30 06:00 UTC",
        ),
        (SILENT, "No bookings since 2016-05-29: 4 days without one"),
        (FELL, "A run of score failed: ServiceDown: MLflow does not answer"),
        (HUSHED, "Ingest has fallen silent: no run completed in 3 hours"),
        (
            IN_FLIGHT,
            "Open bookings go another way than foretold: online: 35.1% predicted to be cancelled, 38.2% expected by"
            " now, more than foretold",
        ),
        (FACT_EXAMPLES[4], "Retrain of 2016-05-29 failed and needs a person: there is still no champion"),
        (
            ChampionChanged("1", None, 1, END, Change.FIRST.value, "passed", "the gate"),
            "First champion: v1 serves from now on",
        ),
        (PROMOTED, "Promoted: v2 serves in place of v1, better in its trial"),
        (BY_HAND, "Promoted by Ada: v2 serves in place of v1, past gate and trial"),
        (BACK, "Rolled back: v1 serves again in place of v2, which did worse on probation"),
        (BACK_BY_HAND, "Rolled back by Ada: v1 serves again in place of v2"),
        (SHIFTED, "Recalibrated: v2 serves in place of v1, all its log odds moved by one number"),
        (ASKED, "Your answer is needed by 2016-06-02 06:00 UTC: promote v2 in place of champion v1?"),
        (ENDED, "Challenger v2 rejected: champion v1 stays"),
    ],
)
def test_subject_says_it_all(fact: Fact, subject: str) -> None:
    assert write(letter(fact), MAIL, "", NOW)["Subject"] == subject
    assert write(letter(fact), MAIL, "staging", NOW)["Subject"] == f"[staging] {subject}"


def test_promotion_by_trial_says_by_how_much_it_is_better_and_how_a_mistake_is_undone() -> None:
    mail = said(PROMOTED, trial())
    assert mail.tone is Tone.GOOD
    matters, next_ = dict(mail.points)["How much it matters"], dict(mail.points)["What comes next"]
    assert "3,475 bookings" in matters
    assert "v2 rated what then happened 1.2% more probable than v1 did (bounds 0.1% to 2.4%)." in matters
    assert "v1 keeps scoring the same bookings in shadow" in next_ and "rolls back by itself" in next_
    assert commands(PROMOTED) == [
        'cancellations rollback --reason "…"',
        "cancellations explain 2",
        "cancellations status",
    ]


@pytest.mark.parametrize(
    ("minutes", "waited"), [(64, "64 minutes"), (300, "5 hours"), (47 * 60, "47 hours"), (60 * 60, "2 days")]
)
def test_an_overdue_retrain_is_told_with_how_long_and_how_it_is_done_by_hand(minutes: int, waited: str) -> None:
    late = replace(LATE, minutes=minutes)  # type: ignore[call-arg]
    assert f"has not ended in {waited}: no worker has taken it" in said(late).verdict
    assert "asked for at 2016-05-30 06:00 UTC" in said(late).verdict and "champion v1 stays" in said(late).verdict
    assert "cancellations retrain --request request-7" in commands(late)


def test_a_failed_run_is_told_with_its_error_what_stands_still_and_where_its_log_is() -> None:
    assert said(FELL).verdict.endswith("ended as Failed at 2016-05-30 06:00 UTC: ServiceDown: MLflow does not answer")
    assert "New bookings have no score" in told(FELL)
    assert commands(FELL)[:2] == ["prefect flow-run logs run-7", "cancellations doctor --canary"]
    long = replace(FELL, said="no " * 100)  # type: ignore[call-arg]
    assert len(said(long).subject) < 100 and said(long).verdict.split().count("no") == 100


def test_a_silent_flow_is_told_with_since_when() -> None:
    assert "in 3 hours; its last one ended at 2016-05-30 03:00 UTC" in said(HUSHED).verdict
    assert "bookings and outcomes do not come in" in told(HUSHED)
    never = replace(HUSHED, since=None)  # type: ignore[call-arg]
    assert "it has never completed one" in said(never).verdict


def test_without_its_trial_a_promotion_tells_the_reasons_of_its_message() -> None:
    assert "Evidence 0.71 of 0.5 needed." in told(PROMOTED)


def test_promotion_that_a_person_approved_says_who_and_stays_one_by_trial() -> None:
    fact = replace(PROMOTED, by="Ada, in Prefect", reason="approved by Ada, in Prefect: seen")  # type: ignore[call-arg]
    mail = said(fact, trial(asked_until=NOW))
    assert mail.subject == "Promoted: v2 serves in place of v1, better in its trial and approved"
    assert dict(mail.points)["Why"] == "Approved by Ada, in Prefect: seen."
    assert "1.2% more probable" in told(fact, trial(asked_until=NOW))


def test_promotion_by_a_person_says_who_why_and_that_no_test_spoke_for_it() -> None:
    mail = said(BY_HAND)
    assert mail.tone is Tone.ATTENTION
    assert "by hand (Ada): v2 serves in place of v1, past gate and trial" in mail.verdict
    assert dict(mail.points)["Why"] == "New price list."
    assert "No test has found v2 better than v1." in told(BY_HAND)
    # Also in the middle of its trial, which then has an id and evidence but no answer.
    cut_short = replace(BY_HAND, trial_id="trial-2-2", reasons=REASONS)
    unfinished = trial(step=Step(END, 900, 0.002, -0.01, 0.02), decided_on=None)
    assert "past gate and trial" in said(cut_short, unfinished).subject
    assert "v2 rated what then happened 0.2% more probable than v1 did (bounds −1.0% to 2.0%), which may be chance" in (
        told(cut_short, unfinished)
    )


@pytest.mark.parametrize(
    ("fact", "tried", "tone"),
    [
        (BACK, trial(Kind.PROBATION, TrialState.ROLLED_BACK), Tone.TROUBLE),
        (BACK, None, Tone.TROUBLE),
        (BACK_BY_HAND, None, Tone.ATTENTION),
        # By hand, in the middle of a probation.
        (replace(BACK, by="Ada"), trial(Kind.PROBATION, TrialState.ROLLED_BACK, decided_on=None), Tone.ATTENTION),
    ],
    ids=["by probation", "by a probation that is not at hand", "by hand", "by hand on probation"],
)
def test_rollback_says_who_serves_again_that_promotions_are_held_and_how_to_release_them(
    fact: Fact, tried: Trial | None, tone: Tone
) -> None:
    mail = said(fact, tried)
    assert mail.tone is tone
    assert mail.verdict.endswith("v1 serves again.")
    now = dict(mail.points)["What is different now"]
    assert "Promotions need a person" in now and "cooldown" in now
    assert commands(fact, tried) == [
        "cancellations explain 2",
        "cancellations acknowledge",
        'cancellations promote 2 --reason "…"',
        "cancellations status",
    ]


def test_a_recalibration_says_by_how_much_and_how_it_is_undone() -> None:
    mail = said(SHIFTED)
    assert mail.tone is Tone.NEWS
    assert dict(mail.points)["Why"] == "Shift +0.310 of version 1."
    assert commands(SHIFTED)[1] == 'cancellations rollback --reason "…"'


def test_rollback_by_probation_says_what_was_noticed() -> None:
    noticed = told(BACK, trial(Kind.PROBATION, TrialState.ROLLED_BACK))
    assert "v1 rated what then happened 1.2% more probable than v2 did (bounds 0.1% to 2.4%)" in noticed


def test_a_change_told_by_a_version_before_trials_can_still_be_delivered() -> None:
    old = {"version": "2", "previous": "1", "epoch": 2, "as_of": "2016-05-29", "reason": "passed its trial"}
    first = old | {"version": "1", "previous": None, "epoch": 1}
    subjects = [
        write(Letter(Message("old", Channel.MAIL, ChampionChanged.topic, payload)), MAIL, "", NOW)["Subject"]
        for payload in (old, first)
    ]
    assert subjects == ["Champion is now v2 (was v1)", "First champion: v1 serves from now on"]


def test_approval_is_asked_with_its_two_ways_to_answer_and_what_silence_means() -> None:
    mail = said(ASKED, trial(state=TrialState.AWAITING, mode=Mode.APPROVE))
    assert "No answer by 2016-06-02 06:00 UTC means no" in mail.verdict
    assert "mode approve" in dict(mail.points)["Why you are asked"]
    assert [s.command for s in mail.steps if not s.typed] == ["Prefect → Runs → the suspended run of trial → Resume"]
    assert commands(ASKED)[1:3] == ['cancellations promote 2 --reason "…"', 'cancellations withdraw --reason "…"']
    html = part(write(letter(ASKED), MAIL, "", NOW), "html")
    assert "<b>Prefect → Runs" in html


def test_approval_after_a_rollback_says_that_promotions_are_held() -> None:
    held = replace(ASKED, reasons=(*REASONS, "promotions need a person: version 3 was rolled back"))  # type: ignore[call-arg]
    awaiting = trial(state=TrialState.AWAITING)
    assert dict(said(held, awaiting).points)["Why you are asked"].endswith("version 3 was rolled back.")


def test_an_approval_that_leaves_late_says_that_it_has_been_settled() -> None:
    assert "the trial is declined" in told(ASKED, trial(state=TrialState.DECLINED))
    assert "settled" not in told(ASKED, trial(state=TrialState.AWAITING))


ENDS = [
    (kind, state)
    for kind, moves in TRANSITIONS.items()
    for state in sorted({to for reached in moves.values() for to in reached if to.final})
    if state not in (TrialState.PROMOTED, TrialState.ROLLED_BACK)
]


@pytest.mark.parametrize(("kind", "state"), ENDS)
def test_every_end_that_leaves_the_champion_has_words_of_its_own(kind: Kind, state: TrialState) -> None:
    champion, rival = ("1", "2") if kind is Kind.TRIAL else ("2", "1")
    fact = TrialEnded("t", kind.value, state.value, champion, rival, END, (*REASONS, "because Ada said so"))
    mail = said(fact, trial(kind, state, Step(END, 900, -0.01, -0.02, -0.001)))
    assert f"hampion v{champion}" in mail.subject
    assert f"v{champion} rated what then happened 1.0% more probable than v{rival} did (bounds 0.1% to 2.0%)." in told(
        fact, trial(kind, state, Step(END, 900, -0.01, -0.02, -0.001))
    )
    a_person = state in (TrialState.DECLINED, TrialState.WITHDRAWN)
    assert ("Why" in dict(mail.points)) == a_person
    undo = f"cancellations {'promote 2' if kind is Kind.TRIAL else 'rollback'} --reason"
    assert any(command.startswith(undo) for command in commands(fact))


def test_ends_of_trials_cannot_be_mistaken_for_one_another() -> None:
    subjects = {said(TrialEnded("t", k.value, s.value, "1", "2", END, REASONS)).subject for k, s in ENDS}
    assert len(subjects) == len(ENDS) == 8
    with pytest.raises(BadInput, match="no mail for a trial that ended as 'confirmed'"):
        said(replace(ENDED, state="confirmed"))  # type: ignore[call-arg]


@pytest.mark.parametrize("doubt", Doubt)
def test_each_doubt_says_what_it_is_what_to_look_at_and_that_a_person_decides(doubt: Doubt) -> None:
    fact = replace(DOUBTED, doubt=doubt.value)  # type: ignore[call-arg]
    mail = said(fact)
    assert mail.tone is Tone.TROUBLE and mail.subject.startswith("The trial of challenger v2 cannot be believed: ")
    assert "arms do not have their sizes" in mail.verdict
    assert {"Look here first", "How much it matters"} <= set(dict(mail.points))
    assert "promotes nothing by itself" in told(fact)
    assert {c.split(" --")[0] for c in commands(fact)} >= {"cancellations withdraw", "cancellations promote 2"}
    probation = said(replace(fact, kind="probation", champion="2", version="1"))
    assert probation.subject.startswith("The probation of champion v2 cannot be believed: ")


def test_a_trial_without_an_outcome_or_in_burn_in_says_that_it_is_too_early() -> None:
    withdrawn = replace(ENDED, state="withdrawn", reasons=("no booking has matured after 2016-05-02",))  # type: ignore[call-arg]
    assert "No booking has matured after 2016-05-02." in told(withdrawn, trial(step=None))
    early = trial(step=Step(END, 120, 0.3, None, None))
    assert "too few days to call it more than chance" in told(withdrawn, early)


def test_mail_of_a_trial_shows_its_facts_in_both_parts() -> None:
    mail = write(letter(PROMOTED, trial=trial(), picture=PICTURE), MAIL, "", NOW)
    text, html = part(mail, "plain"), part(mail, "html")
    assert "THE TRIAL" in text and ">The trial<" in html
    for body in (text, html):
        for fact in (
            "challenger v2, champion v1",
            "promoted, by outcomes final until 2016-05-29",
            "2016-05-02, to end by 2016-06-07",
            "bookings whose outcome became final after 2016-05-02",
            "3,475 bookings of 2 days, until 2016-05-29",
            "+0.0123 a booking (+0.0010 to +0.0236)",
            "30% of bookings",
        ):
            assert fact in body
    probation = part(write(letter(BACK, trial=trial(Kind.PROBATION)), MAIL, "", NOW), "plain")
    assert "THE PROBATION" in probation and "champion v2, its predecessor v1" in probation
    assert "no booking, it scored in shadow" in probation


def test_drift_mail_shows_signals_and_columns_with_before_and_after_in_both_parts() -> None:
    mail = write(letter(stored=decision(column("lead_days", 0.22))), MAIL, "", NOW)
    text, html = part(mail, "plain"), part(mail, "html")
    assert "lead_days: lead_days then → lead_days now" in text
    assert "weight 22%, score 0.312, limit 0.1 (wasserstein)" in text
    assert "lead_days then → lead_days now" in html and ">22%<" in html and "limit 0.1" in html
    for body in (text, html):
        assert "domain classifier" in body and "0.750" in body and "watch" in body
        assert "4,210 bookings" in body


def test_realised_harm_is_told_as_measured_as_absent_or_as_not_measurable() -> None:
    told = {
        verdict: flat(part(write(letter(stored=decision(loss=verdict)), MAIL, "", NOW), "plain"))
        for verdict in (Verdict.ALARM, Verdict.OK, Verdict.NOT_EVALUATED)
    }
    assert "are worse than they should be (excess log loss 0.041, alarm from 0.02)" in told[Verdict.ALARM]
    assert "still hold" in told[Verdict.OK]
    assert "cannot be measured yet (too few)" in told[Verdict.NOT_EVALUATED]
    assert "1 of 2 evaluated signals" in told[Verdict.NOT_EVALUATED]


def test_at_most_eight_columns_the_weightiest_first_and_the_rest_is_counted() -> None:
    columns = [column(f"c{i:02}", weight=i / 100) for i in range(11)]
    mail = write(letter(stored=decision(*columns, column("quiet", 0.9, drifted=False))), MAIL, "", NOW)
    for body in (part(mail, "plain"), part(mail, "html")):
        shown = [c.column for c in columns if f"{c.column} then" in body]
        assert shown == [f"c{i:02}" for i in range(3, 11)]
        assert body.index("c10 then") < body.index("c03 then")
        assert "3 more of less weight" in body and "quiet" not in body


def test_a_column_that_could_not_be_evaluated_is_told_with_the_reason() -> None:
    broken = column("price", drifted=False, score=None, why="no value in the window")
    mail = write(letter(stored=decision(broken)), MAIL, "", NOW)
    for body in (part(mail, "plain"), part(mail, "html")):
        assert "no value in the window" in body


def test_html_escapes_values_from_data() -> None:
    bad = "<script>alert(1)</script>"
    stored = decision(column("a_<b>", after=bad, why=bad))
    stored = replace(stored, decision=Decision(Action.RETRAIN_DRIFT, (bad,)))
    fact = replace(FACT_EXAMPLES[0], champion=bad)  # type: ignore[call-arg]
    mail = write(letter(fact, stored, links={bad: 'http://x/"><script>'}), MAIL, bad, NOW)
    html = part(mail, "html")
    assert "<script" not in html and "<b>a" in html and "a_<b>" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_only_web_addresses_become_links() -> None:
    mail = write(letter(links={"Evil": "javascript:alert(1)", "Run": "https://prefect.example/run"}), MAIL, "", NOW)
    html = part(mail, "html")
    assert "javascript" not in html and 'href="https://prefect.example/run"' in html


def test_newlines_in_data_cannot_inject_headers() -> None:
    fact = replace(FACT_EXAMPLES[0], champion="1\r\nBcc: thief@example.org\r\n\r\nhello")  # type: ignore[call-arg]
    mail = write(letter(fact), MAIL, "stage\nX-Evil: yes", NOW)
    read = message_from_bytes(mail.as_bytes(), policy=default)
    assert read["Bcc"] is None and read["X-Evil"] is None
    assert read["Subject"].startswith("[stage X-Evil: yes] Drift confirmed")


def test_headers_are_for_machines_too() -> None:
    mail = write(letter(), MAIL, "", NOW)
    read = message_from_bytes(mail.as_bytes(), policy=default)
    assert read["Message-ID"] == f"<{letter().message.id}@cancellations>"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["List-Id"] == "<cancellations.hotel.example>"
    assert read["X-Cancellations-Topic"] == "cancellations.drift.detected"
    assert read["Date"].datetime == NOW
    assert [a.addr_spec for a in read["To"].addresses] == ["ada@hotel.example", "bo@hotel.example"]
    assert str(read["From"]) == "Model <model@hotel.example>"


def test_the_same_message_has_the_same_id_whenever_it_is_written() -> None:
    first, again = write(letter(), MAIL, "", NOW), write(letter(), MAIL, "production")
    other = write(letter(FACT_EXAMPLES[1]), MAIL, "", NOW)
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]


def test_picture_is_inside_and_the_html_points_at_it() -> None:
    mail = write(letter(picture=PICTURE), MAIL, "", NOW)
    assert mail.get_content_type() == "multipart/alternative"
    related = list(mail.iter_parts())[1]
    assert related.get_content_type() == "multipart/related"
    html, picture = related.iter_parts()
    assert picture.get_content() == PICTURE and picture.get_content_type() == "image/png"
    assert f'src="cid:{picture["Content-ID"].strip("<>")}"' in html.get_content()


@pytest.mark.parametrize(("tried", "name"), [(None, "drift.png"), (trial(), "trial.png")], ids=["drift", "trial"])
def test_picture_has_the_name_of_what_it_shows(tried: Trial | None, name: str) -> None:
    mail = write(letter(PROMOTED, trial=tried, picture=PICTURE), MAIL, "", NOW)
    assert [p.get_filename() for p in mail.walk() if p.get_content_type() == "image/png"] == [name]


def test_without_a_picture_nothing_points_at_one() -> None:
    mail = write(letter(), MAIL, "", NOW)
    assert "<img" not in part(mail, "html")
    assert [p.get_content_type() for p in mail.iter_parts()] == ["text/plain", "text/html"]


def test_evidentlys_page_goes_along_zipped_and_both_parts_name_it() -> None:
    page = b"<html>" + b"drift " * 10_000 + b"</html>"
    sent = [write(replace(letter(FACT_EXAMPLES[0]), page=page), MAIL, "", NOW) for _ in range(2)]
    (attached,) = sent[0].iter_attachments()
    assert (attached.get_content_type(), attached.get_filename()) == ("application/zip", "evidently.zip")
    with zipfile.ZipFile(io.BytesIO(attached.get_content())) as archive:
        assert archive.namelist() == ["evidently.html"] and archive.read("evidently.html") == page
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)  # whenever it is sent
    # Whoever gets a mail twice gets the same one.
    assert next(iter(sent[1].iter_attachments())).get_content() == attached.get_content()
    for kind in ("plain", "html"):
        part = sent[0].get_body((kind,))
        assert part is not None and "evidently.zip" in part.get_content()


@pytest.mark.parametrize("most", [0, 1])
def test_a_page_that_is_too_large_stays_at_home_and_nothing_points_at_it(most: int) -> None:
    page = np.random.default_rng(0).bytes(5_000)
    small = MAIL.model_copy(update={"evidently_kib": most})
    written = write(replace(letter(FACT_EXAMPLES[0]), page=page), small, "", NOW)
    assert list(written.iter_attachments()) == []
    assert "evidently.zip" not in written.as_string()


def test_mails_of_a_kind_go_to_its_own_readers_and_all_others_to_the_owners() -> None:
    routed = Mail(owners=["ada@hotel.example"], readers={"retrain.failed": ["it@hotel.example", "ops@hotel.example"]})
    to = {fact.topic: write(letter(fact), routed, "", NOW)["To"] for fact in FACT_EXAMPLES}
    assert to.pop(RetrainFailed.topic) == "it@hotel.example, ops@hotel.example"
    assert set(to.values()) == {"ada@hotel.example"}


def test_a_kind_that_no_mail_has_is_refused_with_those_there_are() -> None:
    told = r"'trial.end' is no kind of mail; the kinds: drift\.detected, .*trial\.ended"
    with pytest.raises(ValidationError, match=told):
        Mail(readers={"trial.end": []})
    assert {f"cancellations.{kind}" for kind in OWNERS_MAILS} == set(WORDING) - {OutlookPublished.topic}


def test_a_message_that_cannot_be_written_says_why() -> None:
    message = letter().message
    with pytest.raises(BadInput, match=r"no mail for the topic 'x'.*cancellations\.drift\.detected"):
        write(Letter(replace(message, topic="x")), MAIL, "")
    with pytest.raises(BadInput, match="lacks the field 'champion'"):
        write(Letter(replace(message, payload={})), MAIL, "")


@pytest.mark.parametrize("wrong", ["", "nobody", "a@b\nBcc: c@d", "a b@c d"])
def test_an_address_that_cannot_be_used_names_the_setting(wrong: str) -> None:
    with pytest.raises(BadInput, match="CANCELLATIONS_MAIL__OWNERS"):
        write(letter(), Mail(owners=[wrong]), "")
    with pytest.raises(BadInput, match="CANCELLATIONS_MAIL__SENDER"):
        write(letter(), Mail(sender=wrong), "")


def test_no_owner_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="CANCELLATIONS_MAIL__OWNERS is empty"):
        write(letter(), Mail(owners=[]), "")


def test_documentation_lists_every_setting_with_its_default_and_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mail.md").read_text(encoding="utf-8")
    for name, field in Mail.model_fields.items():
        default_ = (
            "" if field.default is None else f"`{json.dumps(field.default) if name == 'owners' else field.default}`"
        )
        meaning = (field.description or "").replace("|", "\\|")
        assert f"| `CANCELLATIONS_MAIL__{name.upper()}` | {default_} | {meaning} |" in page
    topics = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `cancellations.")]
    assert topics == [fact.topic for fact in FACTS if Channel.MAIL in fact.channels]


def test_a_guard_s_rollback_names_guard_value_limit_and_bookings() -> None:
    probation = trial(Kind.PROBATION, TrialState.ROLLED_BACK, step=None, decided_on=None, reasons=(GUARDED,))
    mail = said(BACK_BY_GUARD, probation)
    assert mail.subject == (
        "Rolled back by the guard of the first bookings: v1 serves again in place of v2 (scatter of differences)"
    )
    assert dict(mail.points)["Why"] == f"{GUARDED[0].upper()}{GUARDED[1:]}. Estimated loss on the first."
    assert "proves no harm" in dict(mail.points)["How much it matters"]
    assert commands(BACK_BY_GUARD, probation)[:3] == [
        "cancellations explain 2",
        "cancellations check",
        "cancellations acknowledge",
    ]


def test_a_version_that_is_not_itself_any_more_is_told_so() -> None:
    reason = "scores on record: fired, 41 of 4,200 bookings get another score now from the same stored features"
    back = replace(BACK_BY_GUARD, reason=reason, reasons=(reason, GUARDED))
    mail = said(back, trial(Kind.PROBATION, TrialState.ROLLED_BACK, step=None, decided_on=None, reasons=(reason,)))
    assert mail.subject == "Rolled back by the guard of scores on record: v1 serves again in place of v2"
    points = dict(mail.points)
    assert points["Why"].startswith("Scores on record: fired, 41 of 4,200 bookings") and "1.210" in points["Why"]
    assert "the artifact of v2 was changed in MLflow" in points["Look here first"]
    assert "cancellations doctor --canary" in commands(back)


def test_bookings_that_are_held_back_are_told_so_with_the_way_to_let_them_go() -> None:
    held = replace(BROKEN, held=True)
    mail = said(held)
    assert mail.subject.startswith(f"Bookings of {END} are held back, they look broken: price: missing in 1,200")
    assert "they have no score, and all other bookings keep theirs" in told(held)
    assert f'cancellations check --release {END} --reason "…"' in commands(held)
    assert "scored them all the same" in told(BROKEN) and not any("release" in step for step in commands(BROKEN))
