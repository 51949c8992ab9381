"""What the mail of each fact says, in sentences for owners: what happened, how much it matters,
what the system did, what one can do.

Both parts of a mail, text and HTML, are laid out from these words, so they cannot contradict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cancellations.domain.events import (
    ChallengerRegistered,
    ChampionChanged,
    DriftDetected,
    RetrainDue,
    RetrainFailed,
    RetrainRejected,
)
from cancellations.domain.retraining import MonitorReport, Verdict
from cancellations.errors import BadInput


class Tone(StrEnum):
    """Colour of the bar above a mail; the words say the same without it."""

    NEWS = "#1f5fa8"
    GOOD = "#2b7a3d"
    ATTENTION = "#b86e00"
    TROUBLE = "#b3261e"


@dataclass(frozen=True)
class Step:
    """A command that an owner can type, and what it does."""

    command: str
    effect: str


STATUS = Step("cancellations status", "shows champion, challenger, last decision and requests")
PAUSE = Step('cancellations pause --reason "…"', "stops automatic retraining")
RESUME = Step("cancellations resume", "allows it again")


@dataclass(frozen=True)
class Words:
    """One mail in sentences. `points` are labelled lines in order of reading; `subject` is one line."""

    tone: Tone
    subject: str
    verdict: str
    points: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = (PAUSE, RESUME, STATUS)


Payload = Mapping[str, Any]


def words(topic: str, payload: Payload, report: MonitorReport | None = None) -> Words:
    """Words of the fact `topic`; `report` is the monitor's, for facts that came from a window.

    Raises `BadInput` for a topic without a mail or a payload that lacks a field.
    """
    if topic not in WORDING:
        raise BadInput(f"there is no mail for the topic {topic!r}; known topics: {', '.join(sorted(WORDING))}.")
    lines = {k: one_line(v) if isinstance(v, str) else v for k, v in payload.items()}
    try:
        return WORDING[topic](lines, report)
    except KeyError as error:
        raise BadInput(
            f"the message {topic!r} lacks the field {error}: it was written by another version of"
            " cancellations. Deliver it with that version."
        ) from error


def one_line(text: object) -> str:
    """Text on one line without control characters: fit for a header, a file's table, a sentence."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def version(number: object) -> str:
    return f"v{number}"


def _drift(payload: Payload, report: MonitorReport | None) -> Words:
    champion = version(payload["champion"])
    window = f"{payload['window_start']} to {payload['window_end']}"
    return Words(
        Tone.ATTENTION,
        f"Drift confirmed in bookings of {window}: retrain requested (champion {champion})",
        f"Drift is confirmed: bookings made {window} are unlike those that champion {champion} learned from."
        " A retrain is requested.",
        (*_weight_of_evidence(report), _requested(champion)),
    )


def _due(payload: Payload, report: MonitorReport | None) -> Words:
    champion = version(payload["champion"])
    window = f"{payload['window_start']} to {payload['window_end']}"
    return Words(
        Tone.NEWS,
        f"Champion {champion} is past its calendar floor: retrain requested (bookings of {window})",
        f"Champion {champion} is old enough to be retrained on the calendar; drift is not confirmed."
        " A retrain is requested.",
        (*_weight_of_evidence(report), _requested(champion)),
    )


def _registered(payload: Payload, _: MonitorReport | None) -> Words:
    new, champion = version(payload["version"]), version(payload["champion"])
    return Words(
        Tone.GOOD,
        f"New version {new} registered as challenger (champion stays {champion})",
        f"The retrain worked: {new} passed the gate and stands as challenger beside champion {champion}.",
        (
            ("How much it matters", f"Nothing changes yet: champion {champion} keeps serving."),
            (
                "What the system did",
                "It backtested on bookings kept out of the fit, then trained on outcomes final by"
                f" {payload['as_of']}, and registered {new} with the alias challenger.",
            ),
        ),
    )


def _rejected(payload: Payload, _: MonitorReport | None) -> Words:
    stays = _who_stays(payload["champion"])
    return Words(
        Tone.ATTENTION,
        f"Retrain of {payload['as_of']} refused at the gate: {stays}",
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


def _failed(payload: Payload, _: MonitorReport | None) -> Words:
    stays = _who_stays(payload["champion"])
    again = Step(f"cancellations retrain --as-of {payload['as_of']}", "asks for it again, once the cause is mended")
    return Words(
        Tone.TROUBLE,
        f"Retrain of {payload['as_of']} failed and needs a person: {stays}",
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


def _changed(payload: Payload, _: MonitorReport | None) -> Words:
    new, previous = version(payload["version"]), payload["previous"]
    reason = payload["reason"].rstrip(".")
    if previous is None:
        subject, verdict = (
            f"First champion: {new} serves from now on",
            f"The first champion stands: {new} serves from now on.",
        )
        moved = f"It gave {new} the alias champion"
    else:
        old = version(previous)
        subject, verdict = (
            f"Champion is now {new} (was {old})",
            f"The champion has changed: {new} serves in place of {old}.",
        )
        moved = f"It moved the alias champion from {old} to {new}"
    return Words(
        Tone.GOOD,
        subject,
        verdict,
        (
            ("Why", f"{reason}."),
            ("How much it matters", f"Every booking scored from now on gets its probability from {new}."),
            ("What the system did", f"{moved}, as change {payload['epoch']} of the ledger."),
        ),
    )


WORDING: dict[str, Callable[[Payload, MonitorReport | None], Words]] = {
    DriftDetected.topic: _drift,
    RetrainDue.topic: _due,
    ChallengerRegistered.topic: _registered,
    RetrainRejected.topic: _rejected,
    RetrainFailed.topic: _failed,
    ChampionChanged.topic: _changed,
}


def _who_stays(champion: object) -> str:
    return "there is still no champion" if champion is None else f"champion {version(champion)} stays"


def _requested(champion: str) -> tuple[str, str]:
    return (
        "What the system did",
        f"It requested a retrain, which starts by itself. Champion {champion} keeps serving; a new version"
        " has to pass a test against it first.",
    )


def _weight_of_evidence(report: MonitorReport | None) -> tuple[tuple[str, str], ...]:
    """How much a window's drift matters: the realised harm first, it is the only proof."""
    if report is None:
        return ()
    evaluated = [s for s in report.signals if s.verdict is not Verdict.NOT_EVALUATED]
    alarms = sum(s.verdict is Verdict.ALARM for s in evaluated)
    drifted = [c.weight for c in report.columns if c.drifted]
    columns = "the one drifted column carries" if len(drifted) == 1 else f"the {len(drifted)} drifted columns carry"
    relied = f"{columns} {sum(drifted):.0%} of what the champion relies on" if drifted else "no column drifted"
    told = f"{alarms} of {len(evaluated)} evaluated signals alarm; {relied}."
    return (("How much it matters", f"{_harm(report)}{told}"),)


def _harm(report: MonitorReport) -> str:
    loss = report.signal("matured excess loss")
    if loss is None:
        return ""
    if loss.verdict is Verdict.NOT_EVALUATED or loss.value is None:
        return f"Whether forecasts got worse cannot be measured yet ({one_line(loss.why)}). "
    figures = f"excess log loss {loss.value:.3f}, alarm from {loss.threshold:g}"
    if loss.verdict is Verdict.ALARM:
        return f"Forecasts of bookings whose outcome is final are worse than they should be ({figures}). "
    return f"Forecasts of bookings whose outcome is final still hold ({figures}). "
