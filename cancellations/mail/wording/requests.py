"""Mails about retrain requests: a challenger, a rejection, failures, what takes too long."""

from __future__ import annotations

from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Trial
from cancellations.mail.wording.sentences import (
    PAUSE,
    RESUME,
    STATUS,
    WITHDRAW,
    Step,
    Story,
    Tone,
    Words,
    explain,
    instant,
    promote,
    version,
)


def registered(story: Story) -> Words:
    number, new, champion = story.fact["version"], version(story.fact["version"]), version(story.fact["champion"])
    return Words(
        Tone.GOOD,
        f"Challenger {new} is on trial against champion {champion}",
        f"The retrain worked: {new} passed the gate and is on trial against champion {champion}.",
        (
            (
                "How much it matters",
                f"Champion {champion} stays for now. Both score the same bookings;"
                f" {_share(story.trial)} {new}'s score.",
            ),
            (
                "What the system did",
                "It backtested on bookings kept out of the fit, then trained on outcomes final by"
                f" {story.fact['as_of']}, registered {new} with the alias challenger, and opened the trial.",
            ),
            (
                "What comes next",
                f"As outcomes become final, a test that may be looked at daily compares the two. The trial ends when"
                f" {new} is found better, or {champion} is, or with its last day, without promotion. A mail says so.",
            ),
        ),
        (
            Step(WITHDRAW, f"ends the trial, {champion} stays"),
            promote(number, f"makes {new} champion without waiting for the trial"),
            explain(number),
            STATUS,
        ),
    )


def _share(trial: Trial | None) -> str:
    if trial is None:
        return "a share of them may be served"
    return "none is served" if trial.serve_share == 0 else f"{trial.serve_share:.0%} of them are served"


def rejected(story: Story) -> Words:
    stays = _who_stays(story.fact["champion"])
    return Words(
        Tone.ATTENTION,
        f"Retrain of {story.fact['as_of']} refused at the gate: {stays}",
        f"The retrained model was not good enough, so it was not registered; {stays}.",
        (
            ("How much it matters", "Predictions are what they were. What made the retrain necessary still stands."),
            (
                "What the system did",
                "It closed the request and registered nothing. The next request follows when the monitor finds"
                " a reason and the cooldown is over.",
            ),
        ),
    )


def gave_up(story: Story) -> Words:
    stays = _who_stays(story.fact["champion"])
    again = Step(f"cancellations retrain --as-of {story.fact['as_of']}", "asks for it again, once the cause is mended")
    return Words(
        Tone.TROUBLE,
        f"Retrain of {story.fact['as_of']} failed and needs a person: {stays}",
        f"The retrain failed on each of its attempts and will not be tried again by itself; {stays}.",
        (
            (
                "How much it matters",
                "Predictions are what they were, but the model is not renewed until this is mended.",
            ),
            ("What the system did", "It closed the request as failed and registered nothing."),
        ),
        (again, PAUSE, RESUME, STATUS),
    )


def overdue(story: Story) -> Words:
    fact, stays = story.fact, _who_stays(story.fact["champion"])
    waits, waited = one_line(fact["reasons"][0]), _minutes(fact["minutes"])
    request = one_line(fact["request_id"])
    return Words(
        Tone.ATTENTION,
        f"Retrain of {fact['as_of']} is overdue: {waits}",
        f"The retrain asked for at {instant(fact['made_at'])} has not ended in {waited}: {waits}; {stays}.",
        (
            (
                "How much it matters",
                "Predictions are what they were. What made the retrain necessary still stands, and no other one is"
                " asked for meanwhile.",
            ),
            (
                "Look here first",
                "Does a worker run (`cancellations up`, or the work pool in Prefect), and is one of its runs stuck?"
                " If trainings take so long on your bookings, raise OVERDUE_MINUTES of the retrain settings.",
            ),
            (
                "What the system did",
                "It keeps the request, and goes on starting it every ten minutes, or waits for the attempt that runs."
                " This is told once for each request.",
            ),
        ),
        (
            STATUS,
            Step(f"cancellations retrain --request {request}", "works on it here, if nobody else does"),
            PAUSE,
            RESUME,
        ),
    )


def _minutes(count: int) -> str:
    if count < 120:
        return f"{count} minutes"
    hours = count // 60
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"


def _who_stays(champion: object) -> str:
    return "there is still no champion" if champion is None else f"champion {version(champion)} stays"
