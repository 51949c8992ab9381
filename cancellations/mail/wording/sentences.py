"""What all mails are told with: their parts, commands to type, and phrases that several kinds share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Trial
from cancellations.domain.retraining import MonitorReport, Verdict


class Tone(StrEnum):
    """Colour of the bar above a mail; the words say the same without it."""

    NEWS = "#1f5fa8"
    GOOD = "#2b7a3d"
    ATTENTION = "#b86e00"
    TROUBLE = "#b3261e"


@dataclass(frozen=True)
class Step:
    """A command that an owner can type, and what it does; `typed` is False for a place to click."""

    command: str
    effect: str
    typed: bool = True


STATUS = Step("cancellations status", "shows champion, challenger, last decision and requests")


CHECK = Step("cancellations check", "checks the days since, and shows what was found")


DOCTOR = Step("cancellations doctor --canary", "looks servers, worker and deployments over, and says what to mend")


PAUSE = Step('cancellations pause --reason "…"', "stops automatic retraining")


RESUME = Step("cancellations resume", "allows it again")


ROLLBACK = 'cancellations rollback --reason "…"'


WITHDRAW = 'cancellations withdraw --reason "…"'


ACKNOWLEDGE = Step("cancellations acknowledge", "lets trials promote without a person again")


def explain(number: str) -> Step:
    return Step(f"cancellations explain {number}", f"tells how {version(number)} came about and what it has done")


def promote(number: str, effect: str) -> Step:
    return Step(f'cancellations promote {number} --reason "…"', effect)


@dataclass(frozen=True)
class Words:
    """One mail in sentences. `points` are labelled lines in order of reading; `subject` is one line."""

    tone: Tone
    subject: str
    verdict: str
    points: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = (PAUSE, RESUME, STATUS)


Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Story:
    """A fact, and what stands behind it: the monitor's report of a window, or the trial as it stands now."""

    fact: Payload
    report: MonitorReport | None = None
    trial: Trial | None = None


def version(number: object) -> str:
    return f"v{number}"


@dataclass(frozen=True)
class Advice:
    """What an alarm beside the evidence is called, what it may mean, and what a person looks at first."""

    subject: str
    harm: str
    look: str


def in_days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def how_much(story: Story) -> str:
    """How much better which version was, in a unit that needs no statistics.

    A difference d of mean log loss is a factor exp(d) on the probability (its geometric mean) that
    was given to what then happened.
    """
    trial = story.trial
    if trial is None or not trial.evidence:
        reasons = story.fact.get("reasons") or ("no booking has been compared",)
        return sentence(reasons[0])
    step = trial.evidence[-1]
    # Told from the better one's side, so that the figure is a gain.
    better, other, sign = (trial.rival, trial.champion, 1) if step.gain >= 0 else (trial.champion, trial.rival, -1)
    told = (
        f"Measured on {step.bookings:,} bookings whose outcome is final: {version(better)} rated what then happened"
        f" {percent(sign * step.gain)} more probable than {version(other)} did"
    )
    if step.low is None or step.high is None:
        return f"{told}; too few days to call it more than chance."
    low, high = sorted((sign * step.low, sign * step.high))
    chance = ", which may be chance" if low <= 0 else ""
    return f"{told} (bounds {percent(low)} to {percent(high)}){chance}."


def percent(nats: float) -> str:
    share = 100 * math.expm1(nats)
    # A hyphen for a minus would let a line break behind it.
    return f"{share:.{1 if abs(share) >= 0.1 else 2}f}%".replace("-", "−")


def sentence(text: str) -> str:
    text = one_line(text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def instant(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def weight_of_evidence(report: MonitorReport | None) -> tuple[tuple[str, str], ...]:
    """How much a window's drift matters: the realised harm first, it is the only proof."""
    if report is None:
        return ()
    evaluated = [s for s in report.signals if s.verdict is not Verdict.NOT_EVALUATED]
    alarms = sum(s.verdict is Verdict.ALARM for s in evaluated)
    drifted = [c.weight for c in report.columns if c.drifted]
    columns = "the one drifted column carries" if len(drifted) == 1 else f"the {len(drifted)} drifted columns carry"
    relied = f"{columns} {sum(drifted):.0%} of what the champion relies on" if drifted else "no column drifted"
    told = f"{alarms} of {len(evaluated)} evaluated signals alarm; {relied}."
    return (("How much it matters", f"{harm_done(report)}{told}"),)


def harm_done(report: MonitorReport) -> str:
    loss = report.signal("matured excess loss")
    if loss is None:
        return ""
    if loss.verdict is Verdict.NOT_EVALUATED or loss.value is None:
        return f"Whether forecasts got worse cannot be measured yet ({one_line(loss.why)}). "
    figures = f"excess log loss {loss.value:.3f}, alarm from {loss.threshold:g}"
    if loss.verdict is Verdict.ALARM:
        return f"Forecasts of bookings whose outcome is final are worse than they should be ({figures}). "
    return f"Forecasts of bookings whose outcome is final still hold ({figures}). "
