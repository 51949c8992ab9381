"""What the mail of each fact says, in sentences for owners: what happened, how much it matters,
what the system did, what one can do.

Both parts of a mail, text and HTML, are laid out from these words, so they cannot contradict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any

from cancellations.domain.aliases import CHAMPION
from cancellations.domain.events import (
    AliasMoved,
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    DataBroken,
    DigestPublished,
    DriftDetected,
    FlowFailed,
    FlowSilent,
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
from cancellations.domain.guards import BY_GUARD, Guard
from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Change, Doubt, Kind, Mode, Trial, TrialState
from cancellations.domain.retraining import Action, MonitorReport, RequestState, Verdict
from cancellations.errors import BadInput


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


def _explain(number: str) -> Step:
    return Step(f"cancellations explain {number}", f"tells how {version(number)} came about and what it has done")


def _promote(number: str, effect: str) -> Step:
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


def words(topic: str, payload: Payload, report: MonitorReport | None = None, trial: Trial | None = None) -> Words:
    """Words of the fact `topic`; `report` and `trial` are those that the fact names, where it names one.

    Raises `BadInput` for a topic without a mail or a payload that lacks a field.
    """
    if topic not in WORDING:
        raise BadInput(f"there is no mail for the topic {topic!r}; known topics: {', '.join(sorted(WORDING))}.")
    lines = {k: one_line(v) if isinstance(v, str) else v for k, v in payload.items()}
    try:
        return WORDING[topic](Story(lines, report, trial))
    except KeyError as error:
        raise BadInput(
            f"the message {topic!r} lacks the field {error}: it was written by another version of"
            " cancellations. Deliver it with that version."
        ) from error


def version(number: object) -> str:
    return f"v{number}"


def _drift(story: Story) -> Words:
    champion = version(story.fact["champion"])
    window = f"{story.fact['window_start']} to {story.fact['window_end']}"
    return Words(
        Tone.ATTENTION,
        f"Drift confirmed in bookings of {window}: retrain requested (champion {champion})",
        f"Drift is confirmed: bookings made {window} are unlike those that champion {champion} learned from."
        " A retrain is requested.",
        (*_weight_of_evidence(story.report), _requested(champion)),
    )


def _due(story: Story) -> Words:
    champion = version(story.fact["champion"])
    window = f"{story.fact['window_start']} to {story.fact['window_end']}"
    return Words(
        Tone.NEWS,
        f"Champion {champion} is past its calendar floor: retrain requested (bookings of {window})",
        f"Champion {champion} is old enough to be retrained on the calendar; drift is not confirmed."
        " A retrain is requested.",
        (*_weight_of_evidence(story.report), _requested(champion)),
    )


def _alarmed(story: Story) -> Words:
    fact, champion = story.fact, version(story.fact["champion"])
    what = ADVICE.get(fact["signal"], Advice(f"{fact['signal']} alarms", "", "Look at the report below."))
    return Words(
        Tone.ATTENTION,
        f"{what.subject}: {fact['before']}, {fact['after']}",
        f"{what.subject}: {fact['before']}, {fact['after']} (on {fact['window_end']}, champion {champion}).",
        (
            ("How much it matters", f"{what.harm} {_harm(story.report) if story.report else ''}".strip()),
            ("Look here first", what.look),
            (
                "What the system did",
                f"Nothing but this mail: the signal is no reason to retrain by itself. Champion {champion} keeps"
                " serving, and no further mail comes while the alarm lasts.",
            ),
        ),
        (STATUS, Step(f"cancellations explain {fact['champion']}", "shows this look and the ones before it"), PAUSE),
    )


@dataclass(frozen=True)
class Advice:
    """What an alarm beside the evidence is called, what it may mean, and what a person looks at first."""

    subject: str
    harm: str
    look: str


ADVICE: Mapping[str, Advice] = {
    "in-flight cancellations": Advice(
        "Open bookings go another way than foretold",
        "Either outcomes reach the system wrongly, and everything that is learnt from them is wrong too, or guests"
        " have changed, and the scores of open bookings are off.",
        "Do outcomes come in whole and on time? Cancellations that are told late, or not at all, look like guests"
        " who stay, and guests who stay like a broken feed. Compare some bookings with the hotel's own system. If the"
        " feed is right, guests have changed: realised loss will tell in the weeks to come, and a retrain follows"
        " from that.",
    ),
    "volume": Advice(
        "Bookings do not come in as they usually do",
        "Bookings that do not reach the system get no score; those that come twice are counted twice.",
        "Has the export stopped, or does it deliver the same bookings under new numbers? `cancellations status` shows"
        " the last loads. A real rush, or a closed hotel, needs nothing.",
    ),
}


def _broken(story: Story) -> Words:
    fact = story.fact
    first, *others = fact["reasons"]
    more = f"; and {len(others)} more" if others else ""
    # Mails of earlier releases may still wait.
    held = bool(fact.get("held"))
    release = Step(f'cancellations check --release {fact["day"]} --reason "…"', "lets them be scored as they are")
    later = "and holds automatic retrains until a day passes its checks. What lasts two weeks is taken for what the"
    later += " data are now."
    did = f"It scored them all the same, {later}"
    if held:
        did = (
            "It holds them back: they have no score, and all other bookings keep theirs. They are scored when they"
            " pass, delivered anew, when somebody releases them, or when some days are over; so are those of the days"
            f" that follow, of which no mail comes while they fail in the same way. It tells `status` of them, {later}"
        )
    return Words(
        Tone.TROUBLE,
        f"Bookings of {fact['day']} {'are held back, they ' if held else ''}look broken: {first}{more}",
        f"The {fact['bookings']:,} bookings made on {fact['day']}{' that wait to be scored' if held else ''} are unlike"
        f" any day before: {first}{more}.",
        (
            (
                "How much it matters",
                f"Their scores {'would' if held else 'may'} be wrong, and so may those of the days that follow, until"
                " the feed is mended. No day of the past was like it, so this is hardly a change of guests.",
            ),
            (
                "Look here first",
                "The export and its mapping: was a column renamed or emptied, a unit changed, a table of earlier"
                " stays lost? `cancellations mapping check` says how a file is read now.",
            ),
            ("What the system did", did),
        ),
        (CHECK, *((release,) if held else ()), STATUS, PAUSE),
    )


def _silent(story: Story) -> Words:
    fact = story.fact
    days, longest = (_days(fact[name]) for name in ("days", "longest"))
    usual = (
        f"the longest pause of the year before was {longest}" if fact["longest"] else "no day of a year was without one"
    )
    return Words(
        Tone.TROUBLE,
        f"No bookings since {fact['since']}: {days} without one",
        f"The last booking was made on {fact['since']}, {days} ago; {usual}.",
        (
            (
                "How much it matters",
                "New bookings have no score until they come in, and what is known of the others grows old:"
                " cancellations that are not told look like guests who stay.",
            ),
            (
                "Look here first",
                "The export that brings the bookings: is it still written, and still put where this system reads it?",
            ),
            (
                "What the system did",
                "It goes on with what it has. Bookings that come later are loaded, and scored, as if they had come in"
                " time. This is told once for each silence.",
            ),
        ),
        (STATUS, PAUSE),
    )


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _registered(story: Story) -> Words:
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
            _promote(number, f"makes {new} champion without waiting for the trial"),
            _explain(number),
            STATUS,
        ),
    )


def _share(trial: Trial | None) -> str:
    if trial is None:
        return "a share of them may be served"
    return "none is served" if trial.serve_share == 0 else f"{trial.serve_share:.0%} of them are served"


def _rejected(story: Story) -> Words:
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


def _failed(story: Story) -> Words:
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


def _overdue(story: Story) -> Words:
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


# What stands still while a flow does not run, for people.
_MEANING: Mapping[str, str] = {
    "ingest": "New bookings and outcomes do not come in.",
    "score": "New bookings have no score, and days are not checked.",
    "monitor": "Nobody looks for drift.",
    "trial": "Trial and probation are not looked at: nothing is promoted, and nothing rolled back by itself.",
    "deliver": "Mails and events that could not leave at once wait.",
    "reconcile": "What a lost event or a dead worker left waiting stays so.",
    "outlook": "The morning's outlook is missing.",
    "digest": "The week's digest is missing.",
}


def _flow_failed(story: Story) -> Words:
    fact = story.fact
    flow, said = one_line(fact["flow"]), one_line(fact["said"])
    logs = Step(f"prefect flow-run logs {one_line(fact['run_id'])}", "shows what the run did until then")
    return Words(
        Tone.TROUBLE,
        f"A run of {flow} failed: {_shortened(said)}",
        f"The run {one_line(fact['run'])} ended as {one_line(fact['state'])} at {instant(fact['at'])}: {said}",
        (
            ("How much it matters", f"{_MEANING.get(flow, 'What it was to do is not done.')} One failed run is made up"
             " for by the next, where it runs by a schedule; those that fail for the same reason are not."),
            ("What the system did", "What the run had not finished was taken back, and can be repeated. Of a flow one"
             " failure a day is told, whatever their number: look whether its next runs completed."),
        ),
        (logs, DOCTOR, STATUS, PAUSE),
    )  # fmt: skip


def _flow_silent(story: Story) -> Words:
    fact = story.fact
    flow = one_line(fact["flow"])
    hours = "an hour" if fact["hours"] == 1 else f"{fact['hours']} hours"
    last = "it has never completed one" if fact["since"] is None else f"its last one ended at {instant(fact['since'])}"
    return Words(
        Tone.TROUBLE,
        f"{flow.capitalize()} has fallen silent: no run completed in {hours}",
        f"The flow {flow} should complete a run every few minutes, and has completed none in {hours}; {last}.",
        (
            ("How much it matters", _MEANING.get(flow, "What it was to do is not done.")),
            (
                "Look here first",
                "Is its schedule on, and do its runs fail, or wait for each other? A run that is stuck keeps all that"
                " come after it from starting.",
            ),
            ("What the system did", "It goes on with its other flows. This is told once for each silence."),
        ),
        (DOCTOR, STATUS, PAUSE),
    )


def _shortened(text: str, length: int = 70) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _minutes(count: int) -> str:
    if count < 120:
        return f"{count} minutes"
    hours = count // 60
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"


def _changed(story: Story) -> Words:
    # Messages of versions before trials say neither how nor by whom.
    change = story.fact.get("change")
    if story.fact["previous"] is None:
        return _first(story)
    if change == Change.PROMOTED:
        return _won(story) if _found_better(story) else _promoted_by_hand(story)
    if change == Change.ROLLED_BACK:
        return _rolled_back(story)
    if change == Change.RECALIBRATED:
        return _recalibrated(story)
    new, old = version(story.fact["version"]), version(story.fact["previous"])
    return Words(
        Tone.GOOD,
        f"Champion is now {new} (was {old})",
        f"The champion has changed: {new} serves in place of {old}.",
        (
            ("Why", _sentence(story.fact["reason"])),
            ("How much it matters", f"Every booking scored from now on gets its probability from {new}."),
            ("What the system did", f"It {_moved(story)}."),
        ),
    )


def _first(story: Story) -> Words:
    new = version(story.fact["version"])
    return Words(
        Tone.GOOD,
        f"First champion: {new} serves from now on",
        f"The first champion stands: {new} serves from now on.",
        (
            ("Why", _sentence(story.fact["reason"])),
            ("How much it matters", f"Every booking scored from now on gets its probability from {new}."),
            (
                "What the system did",
                f"It gave {new} the alias champion, as change {story.fact['epoch']} of the ledger.",
            ),
        ),
    )


def _won(story: Story) -> Words:
    new, old = version(story.fact["version"]), version(story.fact["previous"])
    asked = story.trial is not None and story.trial.asked_until is not None
    return Words(
        Tone.GOOD,
        f"Promoted: {new} serves in place of {old}, better in its trial{' and approved' if asked else ''}",
        f"Challenger {new} proved better than champion {old} in its trial{' and was approved' if asked else ''}:"
        " it serves from now on.",
        (
            *((("Why", _sentence(story.fact["reason"])),) if asked else ()),
            ("How much it matters", f"{_measured(story)} Every open booking gets {new}'s score from now on."),
            ("What the system did", f"It proved that {new} loads and scores, then {_moved(story)}."),
            _watched(new, old),
        ),
        _undo(story),
    )


def _promoted_by_hand(story: Story) -> Words:
    new, old, by = version(story.fact["version"]), version(story.fact["previous"]), story.fact["by"]
    so_far = f" Its trial had not ended. {_measured(story)}" if story.fact.get("reasons") else ""
    return Words(
        Tone.ATTENTION,
        f"Promoted by {by}: {new} serves in place of {old}, past gate and trial",
        f"The champion was changed by hand ({by}): {new} serves in place of {old}, past gate and trial.",
        (
            ("Why", _sentence(story.fact["reason"])),
            (
                "How much it matters",
                f"No test has found {new} better than {old}.{so_far}"
                f" Every open booking gets {new}'s score from now on.",
            ),
            ("What the system did", f"It proved that {new} loads and scores, then {_moved(story)}."),
            _watched(new, old),
        ),
        _undo(story),
    )


def _guarded(story: Story) -> Words:
    """A guard fired: which one, its value and its limit stand in the reasons."""
    back, bad = version(story.fact["version"]), version(story.fact["previous"])
    reason = str(story.fact["reason"])
    if reason.startswith(Guard.LABELS):
        return _mistaught(story, back, bad)
    if reason.startswith(Guard.RECORD):
        return _unlike_itself(story, back, bad)
    guard, _, _ = reason.partition(" on ")
    return Words(
        Tone.TROUBLE,
        f"Rolled back by the guard of the first bookings: {back} serves again in place of {bad} ({guard})",
        f"On the first bookings made after {bad} took over it scored otherwise than before, so {back} serves again.",
        (
            ("Why", " ".join(_sentence(reason) for reason in story.fact["reasons"])),
            (
                "How much it matters",
                "No outcome is known yet, so this proves no harm: it says that something changed on the day of the"
                f" promotion. Every open booking gets {back}'s score again.",
            ),
            (
                "Look here first",
                f"What reaches {bad} now, and did not before: another export or mapping, a column that is emptied, a"
                " table of earlier stays that was lost. A sudden change of guests looks the same, and is rare.",
            ),
            *_after_a_guard(story, back),
        ),
        (
            _explain(str(story.fact["previous"])),
            CHECK,
            ACKNOWLEDGE,
            _promote(str(story.fact["previous"]), f"puts {bad} back, if the rollback was the mistake"),
            STATUS,
        ),
    )


def _mistaught(story: Story, back: str, bad: str) -> Words:
    """The version does not give back the labels of its training."""
    return Words(
        Tone.TROUBLE,
        f"Rolled back by the guard of labels: {back} serves again in place of {bad}",
        f"{bad} has learnt other labels than those on record when it was trained, so {back} serves again.",
        (
            ("Why", " ".join(_sentence(reason) for reason in story.fact["reasons"])),
            (
                "How much it matters",
                "What a fit of matured labels says of its own bookings is right on average. A few tenths of a percent"
                " beside that are labels turned round, bookings counted before they had matured, or open ones taken for"
                f" kept: its scores are too high or too low as a whole. Every open booking gets {back}'s score again.",
            ),
            (
                "Look here first",
                f"How {bad} was trained: by the deployment retrain, or by something else; and whether outcomes were"
                " corrected since.",
            ),
            *_after_a_guard(story, back),
        ),
        (
            _explain(str(story.fact["previous"])),
            ACKNOWLEDGE,
            _promote(str(story.fact["previous"]), f"puts {bad} back, if the rollback was the mistake"),
            STATUS,
        ),
    )


def _unlike_itself(story: Story, back: str, bad: str) -> Words:
    """The version does not say of a booking what it said before."""
    return Words(
        Tone.TROUBLE,
        f"Rolled back by the guard of scores on record: {back} serves again in place of {bad}",
        f"{bad} does not give the scores any more that it gave from the same features, so {back} serves again.",
        (
            ("Why", " ".join(_sentence(reason) for reason in story.fact["reasons"])),
            (
                "How much it matters",
                "A version is a fixed function of the features that are stored with each booking, and whatever changes"
                " its answer changes what it was tried as: what was proved of it holds no more. Every open booking gets"
                f" {back}'s score again.",
            ),
            (
                "Look here first",
                "Whether all that score run the same code and libraries, workers on other machines too; and whether"
                f" the artifact of {bad} was changed in MLflow. If it was those, {back} may be hit as well.",
            ),
            *_after_a_guard(story, back),
        ),
        (
            _explain(str(story.fact["previous"])),
            DOCTOR,
            ACKNOWLEDGE,
            _promote(str(story.fact["previous"]), f"puts {bad} back, when that is mended"),
            STATUS,
        ),
    )


def _after_a_guard(story: Story, back: str) -> tuple[tuple[str, str], ...]:
    return (
        ("What the system did", f"It proved that {back} still loads and scores, then {_moved(story)}."),
        (
            "What is different now",
            "Promotions need a person's approval until somebody acknowledges this rollback, and automatic"
            " retraining waits out its cooldown.",
        ),
    )


def _rolled_back(story: Story) -> Words:
    if story.fact["by"] == BY_GUARD:
        return _guarded(story)
    back, bad, by = version(story.fact["version"]), version(story.fact["previous"]), story.fact["by"]
    noticed = _found_better(story)
    measured = f"{_measured(story)} " if story.fact.get("reasons") else ""
    return Words(
        Tone.TROUBLE if noticed else Tone.ATTENTION,
        f"Rolled back{'' if noticed else f' by {by}'}: {back} serves again in place of {bad}"
        + (", which did worse on probation" if noticed else ""),
        f"Champion {bad} did worse than its predecessor {back} on probation, so {back} serves again."
        if noticed
        else f"Champion {bad} was taken back by hand ({by}), so {back} serves again.",
        (
            *(() if noticed else (("Why", _sentence(story.fact["reason"])),)),
            ("How much it matters", f"{measured}Every open booking gets {back}'s score again."),
            ("What the system did", f"It proved that {back} still loads and scores, then {_moved(story)}."),
            (
                "What is different now",
                "Promotions need a person's approval until somebody acknowledges this rollback, and automatic"
                " retraining waits out its cooldown.",
            ),
        ),
        (
            _explain(str(story.fact["previous"])),
            ACKNOWLEDGE,
            _promote(str(story.fact["previous"]), f"puts {bad} back, if the rollback was the mistake"),
            STATUS,
        ),
    )


def _recalibrated(story: Story) -> Words:
    new, old = version(story.fact["version"]), version(story.fact["previous"])
    return Words(
        Tone.NEWS,
        f"Recalibrated: {new} serves in place of {old}, all its log odds moved by one number",
        f"What has happened to open bookings so far asked for another level: {new} serves in place of {old}.",
        (
            ("Why", _sentence(story.fact["reason"])),
            (
                "How much it matters",
                "The order of bookings by risk stays; their probabilities, and what is expected of a night, move"
                f" together. Every open booking gets {new}'s score.",
            ),
            ("What the system did", f"It proved that {new} loads and scores, then {_moved(story)}."),
            (
                "What is different now",
                "Nothing has to be done. It looks again each day, and mails when the shift has moved as far again."
                " A shift that stays large is a reason to retrain.",
            ),
        ),
        (
            _explain(str(story.fact["version"])),
            Step(ROLLBACK, f"puts {old} back, and stops the recalibration until somebody acknowledges"),
            STATUS,
        ),
    )


def _alias_moved(story: Story) -> Words:
    fact = story.fact
    placed, found = (_holder(fact[name]) for name in ("placed", "found"))
    adopt = "CANCELLATIONS_ALIASES=adopt makes its version champion instead, on the record and on probation"
    steps = [STATUS]
    if fact["found"] is not None and fact["alias"] == CHAMPION:
        steps.insert(0, _promote(fact["found"], f"makes {found} champion, proven and on the record"))
    return Words(
        Tone.ATTENTION,
        f"Alias {fact['alias']} was moved in MLflow from {placed} to {found}, and put back",
        f"Somebody, or a program, has moved the alias {fact['alias']} in MLflow from {placed} to {found}; it was"
        f" noticed at {instant(fact['seen_at'])}, and put back.",
        (
            ("Why", _sentence(fact["reasons"][-1])),
            (
                "How much it matters",
                "What the hotel is served follows the ledger, and did not change. Whoever reads the alias in MLflow"
                " had the other version meanwhile.",
            ),
            (
                "What the system did",
                f"It wrote it down and moved the alias back. MLflow does not say who it was. {_sentence(adopt)}"
                " This is told once until the next change of champion or challenger, however often it happens.",
            ),
        ),
        tuple(steps),
    )


def _holder(number: object) -> str:
    return "nobody" if number is None else version(number)


def _approval(story: Story) -> Words:
    number, until = story.fact["version"], instant(story.fact["until"])
    new, champion = version(number), version(story.fact["champion"])
    because = "The trial policy asks a person before every promotion (mode approve)."
    if story.trial is None or story.trial.mode is not Mode.APPROVE:
        because = _sentence(story.fact["reasons"][-1])
    since: tuple[tuple[str, str], ...] = ()
    if story.trial is not None and story.trial.state is not TrialState.AWAITING:
        since = (("Since then", f"This has been settled: the trial is {story.trial.state}."),)
    return Words(
        Tone.ATTENTION,
        f"Your answer is needed by {until}: promote {new} in place of champion {champion}?",
        f"Challenger {new} is better than champion {champion}. Shall it serve? No answer by {until} means no.",
        (
            *since,
            ("How much it matters", _measured(story)),
            ("Why you are asked", because),
            (
                "What the system did",
                "It stopped reading, since the test has its answer, and waits. Until then all stays as in the trial.",
            ),
        ),
        (
            Step("Prefect → Runs → the suspended run of trial → Resume", "opens the form for your answer", typed=False),
            _promote(number, "says yes from the command line"),
            Step(WITHDRAW, "says no"),
            _explain(number),
            STATUS,
        ),
    )


def _doubted(story: Story) -> Words:
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
            _promote(number, f"makes {version(number)} champion all the same"),
            _explain(number),
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


def _ended(story: Story) -> Words:
    kind, state = story.fact["kind"], story.fact["state"]
    number, rival, champion = story.fact["version"], version(story.fact["version"]), version(story.fact["champion"])
    stays = f"champion {champion} stays"
    reasons = story.fact["reasons"]
    last = _sentence(reasons[-1]) if reasons else ""
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
        steps = (_promote(number, f"makes {rival} champion all the same"), _explain(number), STATUS)
    else:
        did = f"It let {rival} go, which scores in shadow no longer. Only a person can roll back to it from now on."
        steps = (Step(ROLLBACK, f"puts {rival} back"), _explain(story.fact["champion"]), STATUS)
    by_a_person = state in (TrialState.DECLINED, TrialState.WITHDRAWN)
    return Words(
        tone,
        subject,
        verdict,
        (
            *((("Why", last),) if by_a_person else ()),
            ("How much it matters", _measured(story)),
            ("What the system did", did),
        ),
        steps,
    )


def _outlook(story: Story) -> Words:
    fact = story.fact
    # All hotels together come first; their row has no name that a hotel could not have, too.
    week, fortnight = (next(rows) for _, rows in groupby(fact["weeks"], key=itemgetter("days")))
    unsure = f"{fact['share']:.0%}"
    number = fact["unscored"]
    who = "1 open booking has" if number == 1 else f"{number:,} open bookings have"
    left_out = f" {who} no score yet; left out here." if number else ""
    return Words(
        Tone.NEWS,
        # The sign stands first: folded behind other words it would be told with two spaces.
        f"{_money_at_risk(week, fact, '', ': ')}{_rooms_at_risk(week)} expected to cancel"
        f" in the next {week['days']} nights",
        f"Of {week['on_books']:,} room nights on the books for the next {week['days']} nights"
        f" {week['expected']:,.0f} are expected to cancel"
        f" ({week['expected_low']:,.0f} to {week['expected_high']:,.0f}){_money_at_risk(week, fact)}.",
        (
            (
                "The fortnight",
                f"{_rooms_at_risk(fortnight)} expected to cancel in the next {fortnight['days']} nights"
                f" ({fortnight['expected_low']:,.0f} to {fortnight['expected_high']:,.0f})"
                f"{_money_at_risk(fortnight, fact)}.",
            ),
            (
                "How sure this is",
                f"The intervals should hold what happens {unsure} of the time. Counted are bookings on the books in"
                f" the morning of {fact['as_of']}: nobody who has yet to book, no guest who is in the house."
                f"{left_out}",
            ),
        ),
        (
            Step("cancellations scores export --to FOLDER", "writes every booking, night and risk as CSV"),
            Step("cancellations scores outlook", "shows the coming fortnight night by night"),
            STATUS,
        ),
    )


def _rooms_at_risk(row: Payload) -> str:
    return f"{row['expected']:,.0f} of {row['on_books']:,} room nights"


def _money_at_risk(row: Payload, fact: Payload, before: str = "; ", behind: str = "") -> str:
    if row["at_risk"] is None:
        return ""
    return f"{before}{fact['currency']}\u00a0{row['at_risk']:,.0f} at risk{behind}"


def _digest(story: Story) -> Words:
    fact = story.fact
    needed = _needed(fact)
    alarms = story.report is not None and any(s.verdict is Verdict.ALARM for s in story.report.signals)
    quiet = not alarms and not fact["changes"] and all(look["action"] == Action.NONE for look in fact["looks"])
    days = f"{fact['since']} to {fact['until']}"
    champion, found, others = _of_the_champion(fact), _of_the_looks(fact), _of_the_rest(fact)
    matters = _weight_of_evidence(story.report) or (
        ("How much it matters", "No look has been taken yet, so whether forecasts hold is not known."),
    )
    rest = f" {_sentence(', '.join(others))}" if others else ""
    return Words(
        Tone.ATTENTION if needed else Tone.GOOD if quiet else Tone.NEWS,
        f"{_span(fact)}: {', '.join((champion, found, *others))}",
        f"{_sentence(f'{days}: {champion}, {found}')}{rest}",
        (
            ("What needs you", _sentence("; ".join(needed)) if needed else "Nothing."),
            *matters,
            ("What the system did", _done(fact)),
        ),
        _digest_steps(fact),
    )


def _span(fact: Payload) -> str:
    days = (date.fromisoformat(fact["until"]) - date.fromisoformat(fact["since"])).days + 1
    weeks, odd = divmod(days, 7)
    told = f"{days} days" if odd else "Week" if weeks == 1 else f"{weeks} weeks"
    return f"{told} to {fact['until']}"


def change_of(change: Payload) -> str:
    """A change of champion in a few words."""
    serves = version(change["champion"])
    told: dict[str, str] = {
        Change.FIRST: f"first champion {serves}",
        Change.PROMOTED: f"{serves} promoted",
        Change.ROLLED_BACK: f"rolled back to {serves}",
        Change.RECALIBRATED: f"recalibrated as {serves}",
    }
    return told[change["change"]]


def _of_the_champion(fact: Payload) -> str:
    changes = [change for change in fact["changes"] if change["change"] != Change.RECALIBRATED] or fact["changes"][-1:]
    if changes:
        return ", then ".join(change_of(change) for change in changes)
    return "no champion yet" if fact["champion"] is None else f"champion {version(fact['champion']['version'])} held"


def _of_the_looks(fact: Payload) -> str:
    taken = [look["action"] for look in fact["looks"]]
    if not taken:
        return "no look taken"
    drifts = taken.count(Action.RETRAIN_DRIFT)
    told = [
        "drift confirmed" if drifts == 1 else f"drift confirmed {drifts} times" if drifts else "",
        "retrain due by the calendar" if Action.RETRAIN_CALENDAR in taken else "",
        "a reason to retrain held back" if Action.HOLD in taken and not drifts else "",
    ]
    return ", ".join(text for text in told if text) or "no drift confirmed"


def _of_the_rest(fact: Payload) -> list[str]:
    """What else belongs into a subject, the worst first."""
    states = [asked["state"] for asked in fact["requests"]]
    broken = len(fact["broken"])
    told = [
        "retrain failed" if RequestState.FAILED in states else "",
        f"data broken on {_days(broken)}" if broken else "",
        "" if fact["booked"] else "no bookings",
        "retrain refused at the gate" if RequestState.REJECTED in states else "",
    ]
    trial = fact["trial"]
    if trial is not None:
        rival, champion = version(trial["rival"]), version(trial["champion"])
        if trial["state"] == TrialState.AWAITING:
            told.append(f"challenger {rival} awaits your answer")
        else:
            a_trial = trial["kind"] == Kind.TRIAL
            told.append(f"challenger {rival} on trial" if a_trial else f"{champion} on probation")
    elif RequestState.WAITING in states or RequestState.RUNNING in states:
        told.append("a retrain is under way")
    return [text for text in told if text]


def _needed(fact: Payload) -> list[str]:
    """What waits for a person."""
    trial, states = fact["trial"], [asked["state"] for asked in fact["requests"]]
    needed = []
    if trial is not None and trial["state"] == TrialState.AWAITING:
        until = f" by {instant(trial['asked_until'])}" if trial["asked_until"] else ""
        needed.append(f"your answer{until}: shall {version(trial['rival'])} serve?")
    if RequestState.FAILED in states:
        needed.append("a retrain failed on each of its attempts")
    if fact["broken"]:
        needed.append("the feed: bookings failed their checks")
    if not fact["booked"]:
        needed.append("the feed: no booking was made on these days")
    if fact["held"] is not None:
        needed.append("promotions wait until somebody acknowledges a rollback")
    if fact["paused"] is not None:
        needed.append(f"automatic retraining is paused ({one_line(fact['paused'])})")
    return needed


def _done(fact: Payload) -> str:
    looks, requests = len(fact["looks"]), fact["requests"]
    looked = {1: "once", 2: "twice"}.get(looks, f"{looks} times")
    told = [f"looked for drift {looked}" if looks else "took no look"]
    if fact["champion"] is not None and fact["booked"]:
        some = "all" if fact["scored"] == fact["booked"] else f"{fact['scored']:,} of"
        told.insert(0, f"scored {some} {fact['booked']:,} new bookings")
    if requests:
        made = [f"registered {version(asked['version'])}" for asked in requests if asked["version"]]
        asked = "1 retrain" if len(requests) == 1 else f"{len(requests)} retrains"
        came = f" ({', '.join(made)})" if made else ""
        told.append(f"worked on {asked}{came}")
    kept = len(fact["weekly"])
    if kept:
        told.append(f"kept {'1 mail' if kept == 1 else f'{kept} mails'} for this digest")
    first, last = ", ".join(told[:-1]), told[-1]
    return f"It {f'{first}, and {last}' if first else last}."


def _digest_steps(fact: Payload) -> tuple[Step, ...]:
    steps: list[Step] = []
    trial = fact["trial"]
    if trial is not None and trial["kind"] == Kind.TRIAL:
        awaits = trial["state"] == TrialState.AWAITING
        if awaits:
            steps.append(_promote(trial["rival"], "says yes"))
        steps.append(Step(WITHDRAW, "says no" if awaits else f"ends the trial, {version(trial['champion'])} stays"))
    failed = [asked for asked in fact["requests"] if asked["state"] == RequestState.FAILED]
    if failed:
        again = f"cancellations retrain --as-of {failed[-1]['as_of']}"
        steps.append(Step(again, "asks for the retrain again, once its cause is mended"))
    if fact["broken"] or fact["silent"]:
        steps.append(CHECK)
    if fact["held"] is not None:
        steps.append(ACKNOWLEDGE)
    report = Step("cancellations report --open", "shows the last look in full") if fact["report_id"] else None
    return (*steps, STATUS, *((report,) if report else ()), PAUSE if fact["paused"] is None else RESUME)


WORDING: dict[str, Callable[[Story], Words]] = {
    DriftDetected.topic: _drift,
    RetrainDue.topic: _due,
    SignalAlarmed.topic: _alarmed,
    DataBroken.topic: _broken,
    SourceSilent.topic: _silent,
    ChallengerRegistered.topic: _registered,
    RetrainRejected.topic: _rejected,
    RetrainFailed.topic: _failed,
    RetrainOverdue.topic: _overdue,
    FlowFailed.topic: _flow_failed,
    FlowSilent.topic: _flow_silent,
    ChampionChanged.topic: _changed,
    AliasMoved.topic: _alias_moved,
    ApprovalNeeded.topic: _approval,
    TrialDoubted.topic: _doubted,
    TrialEnded.topic: _ended,
    OutlookPublished.topic: _outlook,
    DigestPublished.topic: _digest,
}


def _found_better(story: Story) -> bool:
    """Whether a test asked for the change, or a person did without one."""
    if story.fact["trial_id"] is None:
        return False
    return story.trial is None or story.trial.decided_on is not None


def _measured(story: Story) -> str:
    """How much better which version was, in a unit that needs no statistics.

    A difference d of mean log loss is a factor exp(d) on the probability (its geometric mean) that
    was given to what then happened.
    """
    trial = story.trial
    if trial is None or not trial.evidence:
        reasons = story.fact.get("reasons") or ("no booking has been compared",)
        return _sentence(reasons[0])
    step = trial.evidence[-1]
    # Told from the better one's side, so that the figure is a gain.
    better, other, sign = (trial.rival, trial.champion, 1) if step.gain >= 0 else (trial.champion, trial.rival, -1)
    told = (
        f"Measured on {step.bookings:,} bookings whose outcome is final: {version(better)} rated what then happened"
        f" {_percent(sign * step.gain)} more probable than {version(other)} did"
    )
    if step.low is None or step.high is None:
        return f"{told}; too few days to call it more than chance."
    low, high = sorted((sign * step.low, sign * step.high))
    chance = ", which may be chance" if low <= 0 else ""
    return f"{told} (bounds {_percent(low)} to {_percent(high)}){chance}."


def _percent(nats: float) -> str:
    share = 100 * math.expm1(nats)
    # A hyphen for a minus would let a line break behind it.
    return f"{share:.{1 if abs(share) >= 0.1 else 2}f}%".replace("-", "−")


def _moved(story: Story) -> str:
    new, old = version(story.fact["version"]), version(story.fact["previous"])
    return f"moved the alias champion from {old} to {new}, as change {story.fact['epoch']} of the ledger"


def _watched(new: str, old: str) -> tuple[str, str]:
    return (
        "What comes next",
        f"{new} is on probation: {old} keeps scoring the same bookings in shadow. If {old} proves better after all,"
        " the system rolls back by itself.",
    )


def _undo(story: Story) -> tuple[Step, ...]:
    old = version(story.fact["previous"])
    return (Step(ROLLBACK, f"puts {old} back at once"), _explain(str(story.fact["version"])), STATUS)


def _sentence(text: str) -> str:
    text = one_line(text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def instant(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


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
