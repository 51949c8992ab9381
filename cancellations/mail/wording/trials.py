"""Mails about trials and probations: a person is asked, something is doubted, the end."""

from __future__ import annotations

from collections.abc import Mapping

from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Doubt, Kind, Mode, TrialState
from cancellations.errors import BadInput
from cancellations.mail.wording.sentences import (
    ROLLBACK,
    STATUS,
    WITHDRAW,
    Advice,
    Step,
    Story,
    Tone,
    Words,
    explain,
    how_much,
    instant,
    promote,
    sentence,
    version,
)


def approval(story: Story) -> Words:
    number, until = story.fact["version"], instant(story.fact["until"])
    new, champion = version(number), version(story.fact["champion"])
    because = "The trial policy asks a person before every promotion (mode approve)."
    if story.trial is None or story.trial.mode is not Mode.APPROVE:
        because = sentence(story.fact["reasons"][-1])
    since: tuple[tuple[str, str], ...] = ()
    if story.trial is not None and story.trial.state is not TrialState.AWAITING:
        since = (("Since then", f"This has been settled: the trial is {story.trial.state}."),)
    return Words(
        Tone.ATTENTION,
        f"Your answer is needed by {until}: promote {new} in place of champion {champion}?",
        f"Challenger {new} is better than champion {champion}. Shall it serve? No answer by {until} means no.",
        (
            *since,
            ("How much it matters", how_much(story)),
            ("Why you are asked", because),
            (
                "What the system did",
                "It stopped reading, since the test has its answer, and waits. Until then all stays as in the trial.",
            ),
        ),
        (
            Step("Prefect → Runs → the suspended run of trial → Resume", "opens the form for your answer", typed=False),
            promote(number, "says yes from the command line"),
            Step(WITHDRAW, "says no"),
            explain(number),
            STATUS,
        ),
    )


def doubted(story: Story) -> Words:
    fact = story.fact
    number, champion = fact["version"], version(fact["champion"])
    doubt = DOUBTS[fact["doubt"]]
    trial = fact["kind"] == Kind.TRIAL
    what = f"trial of challenger {version(number)}" if trial else f"probation of champion {champion}"
    return Words(
        Tone.TROUBLE,
        f"The {what} cannot be believed: {doubt.subject}",
        f"The {what} reads bookings on which it should not be believed: {one_line(fact['reasons'][0])}.",
        (
            ("How much it matters", doubt.harm),
            ("Look here first", doubt.look),
            (
                "What the system did",
                "It goes on reading, and promotes nothing by itself: a challenger that is found better waits for a"
                f" person's answer. Champion {champion} serves meanwhile. This is told once in a trial.",
            ),
        ),
        (
            Step(WITHDRAW, f"ends it, {champion} stays"),
            promote(number, f"makes {version(number)} champion all the same"),
            explain(number),
            STATUS,
        ),
    )


DOUBTS: Mapping[str, Advice] = {
    Doubt.ARMS: Advice(
        "its arms are not as large as they were meant to be",
        "Each booking's arm is a coin of its own, so chance does not explain this: bookings were lost on the way, or"
        " left out, or dealt otherwise than by their ids. What is missing may be what the trial should have seen.",
        "Was a part of the scores, arms or bookings deleted or filtered by hand? Does one of the versions fail on a"
        " kind of booking? Has CANCELLATIONS_TRIAL__SERVE_SHARE, or the program, changed in the middle of the trial?",
    ),
    Doubt.NO_HOLD_OUT: Advice(
        "scores are acted upon, and no booking is left alone",
        "Acting on a score changes its label: a guest who is called, and then comes, makes a score look wrong that was"
        " right. Bookings with an action on record are left out; what remains is a selection of those that nobody"
        " worried about.",
        "Set CANCELLATIONS_ACTIONS__HOLD_OUT to a share of bookings, 0.2 say, that staff leave alone: the column"
        " hold_out of the scores marks them (docs/actions.md).",
    ),
    Doubt.BROKEN: Advice(
        "held-out bookings were acted upon",
        "The hold-out tells what becomes of bookings that nobody acts upon. Those that were acted upon all the same are"
        " left out; where staff chose them by more than the score, the others are no fair sample any more.",
        "Do staff see the column hold_out, and leave these bookings alone? Does the feed tell actions of the right"
        " bookings?",
    ),
}


def ended(story: Story) -> Words:
    kind, state = story.fact["kind"], story.fact["state"]
    number, rival, champion = story.fact["version"], version(story.fact["version"]), version(story.fact["champion"])
    stays = f"champion {champion} stays"
    reasons = story.fact["reasons"]
    last = sentence(reasons[-1]) if reasons else ""
    told: dict[tuple[str, str], tuple[Tone, str, str]] = {
        (Kind.TRIAL, TrialState.REJECTED): (
            Tone.NEWS,
            f"Challenger {rival} rejected: {stays}",
            f"Champion {champion} proved better than challenger {rival} in the trial, and stays.",
        ),
        (Kind.TRIAL, TrialState.DECLINED): (
            Tone.NEWS,
            f"Challenger {rival} declined: {stays}",
            f"Challenger {rival} was better in its trial, but its promotion was not approved: {stays}.",
        ),
        (Kind.TRIAL, TrialState.WITHHELD): (
            Tone.ATTENTION,
            f"Challenger {rival} is better, but mode shadow promotes nothing: {stays}",
            f"Challenger {rival} proved better in its trial. In mode shadow promotion is left to you: {stays}.",
        ),
        (Kind.TRIAL, TrialState.EXPIRED): (
            Tone.NEWS,
            f"Trial of challenger {rival} ended without an answer: {stays}",
            f"The trial of challenger {rival} reached its last day and found neither better, so {stays}.",
        ),
        (Kind.TRIAL, TrialState.WITHDRAWN): (
            Tone.NEWS,
            f"Trial of challenger {rival} withdrawn: {stays}",
            f"The trial of challenger {rival} was ended before it had an answer, so {stays}.",
        ),
        (Kind.PROBATION, TrialState.CONFIRMED): (
            Tone.GOOD,
            f"Champion {champion} confirmed: better than its predecessor {rival}",
            f"Champion {champion} has passed its probation: it proved better than its predecessor {rival}.",
        ),
        (Kind.PROBATION, TrialState.EXPIRED): (
            Tone.GOOD,
            f"Probation of champion {champion} is over: it stays",
            f"Champion {champion} has served its probation, and its predecessor {rival} was not found better.",
        ),
        (Kind.PROBATION, TrialState.WITHDRAWN): (
            Tone.ATTENTION,
            f"Probation of champion {champion} withdrawn: it stays, unwatched",
            f"The probation of champion {champion} was ended before it had an answer; it stays.",
        ),
    }
    if (kind, state) not in told:
        raise BadInput(f"there is no mail for a {kind} that ended as {state!r}")
    tone, subject, verdict = told[kind, state]
    if kind == Kind.TRIAL:
        did = f"It took {rival} out: {rival} scores no longer, and every open booking gets {champion}'s score."
        steps = (promote(number, f"makes {rival} champion all the same"), explain(number), STATUS)
    else:
        did = f"It let {rival} go, which scores in shadow no longer. Only a person can roll back to it from now on."
        steps = (Step(ROLLBACK, f"puts {rival} back"), explain(story.fact["champion"]), STATUS)
    by_a_person = state in (TrialState.DECLINED, TrialState.WITHDRAWN)
    return Words(
        tone,
        subject,
        verdict,
        (
            *((("Why", last),) if by_a_person else ()),
            ("How much it matters", how_much(story)),
            ("What the system did", did),
        ),
        steps,
    )
