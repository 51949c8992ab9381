"""The lists and tables of the weekly digest, as text that is ready to stand in its place."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from cancellations.domain.events import PREFIX
from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Change, Kind
from cancellations.domain.retraining import RequestState
from cancellations.errors import BadInput
from cancellations.mail.wording import words
from cancellations.mail.wording.sentences import instant, version
from cancellations.mail.wording.summaries import change_of
from cancellations.ports import Letter, MessageState

# More is no line to read; the rest is counted.
DAYS_SHOWN = 5
ENDED: Mapping[str, str] = {
    RequestState.WAITING: "waits for a worker, a trial's end or a pause's",
    RequestState.RUNNING: "a worker trains",
    RequestState.REJECTED: "refused at the gate",
    RequestState.FAILED: "failed, its attempts are used up",
}
LEFT: Mapping[str, str] = {MessageState.PENDING: "not sent yet", MessageState.DEAD: "given up, never sent"}


def digest_tables(letter: Letter, nobody_reads: Collection[str]) -> dict[str, Any]:
    """`standing` in labelled lines, `looks` as rows, mails `told` here, and those that came `at_once`.

    Mails of the topics `nobody_reads` are told only where they were kept for the digest.
    """
    fact = letter.message.payload
    states = {mailed["id"]: mailed["state"] for mailed in fact["at_once"]}
    told = [_mail(each) for each in letter.told if each.message.id in fact["weekly"]]
    others = [e for e in letter.told if e.message.id in states and e.message.topic not in nobody_reads]
    return {
        "standing": [(label, one_line(text)) for label, text in _standing(fact)],
        "looks": [_look(look) for look in reversed(fact["looks"])],
        "told": told,
        # Whoever got these has read their verdicts.
        "at_once": [_mail(e) | {"verdict": "", "note": LEFT.get(states[e.message.id], "")} for e in others],
    }


def _mail(letter: Letter) -> dict[str, str]:
    message = letter.message
    try:
        said = words(message.topic, message.payload, None, letter.trial)
    except BadInput:
        # Written by another version: the digest tells that it was there.
        kind = one_line(message.topic.removeprefix(PREFIX))
        return {"subject": kind, "verdict": "Its words cannot be read by this version.", "note": ""}
    subject, verdict = one_line(said.subject), one_line(said.verdict)
    return {"subject": subject, "verdict": "" if verdict.startswith(subject) else verdict, "note": ""}


def _look(look: Mapping[str, Any]) -> dict[str, str]:
    # Rounded down, as the decision's own reasons are: evidence that just misses should not read as if it had not.
    evidence = "not evaluated" if look["evidence"] is None else f"{math.floor(look['evidence'] * 100) / 100:.2f}"
    action = "nothing to do" if look["action"] == "none" else look["action"]
    return {
        "end": one_line(look["end"]),
        "evidence": evidence,
        "action": one_line(action),
        "champion": one_line(version(look["champion"])),
    }


def _standing(fact: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Champion", _champion(fact)
    if fact["serving"] is not None:
        yield "Since then", f"{version(fact['serving'])} serves"
    yield from _changes(fact["changes"])
    trial = fact["trial"]
    if trial is not None:
        yield ("Trial" if trial["kind"] == Kind.TRIAL else "Probation"), _trial(trial)
    for asked in fact["requests"]:
        ended = (
            f"registered {version(asked['version'])}" if asked["version"] else ENDED.get(asked["state"], asked["state"])
        )
        yield f"Retrain {asked['as_of']}", f"{ended} ({asked['reason']})"
    if fact["paused"] is not None:
        yield "Retraining", f"paused: {fact['paused']}"
    if fact["held"] is not None:
        yield "Promotions", f"need a person until somebody acknowledges: {fact['held']}"
    yield "Bookings", _bookings(fact)
    broken = fact["broken"]
    for day in broken[:DAYS_SHOWN]:
        more = f"; and {day['findings'] - 1} more" if day["findings"] > 1 else ""
        yield f"Broken {day['day']}", f"{day['first']}{more}"
    if len(broken) > DAYS_SHOWN:
        yield "Broken", f"{len(broken) - DAYS_SHOWN} more days: cancellations check shows each"
    if fact["silent"] and fact["booked"]:
        yield "Without a booking", _days(fact["silent"])


def _champion(fact: Mapping[str, Any]) -> str:
    champion = fact["champion"]
    if champion is None:
        return "none yet"
    age = (date.fromisoformat(fact["until"]) - date.fromisoformat(champion["trained_as_of"])).days
    return (
        f"{version(champion['version'])}, trained as of {champion['trained_as_of']} ({age} days old), serves since"
        f" {champion['serves_since']}"
    )


def _changes(changes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each change of champion; recalibrations, of which there may be one a day, together."""
    shifts = [change for change in changes if change["change"] == Change.RECALIBRATED]
    for change in changes:
        if change not in shifts:
            yield f"Changed {change['as_of']}", f"{change_of(change)}, by {change['by']}"
    if shifts:
        times = "once" if len(shifts) == 1 else f"{len(shifts)} times"
        yield "Recalibrated", f"{times}, last on {shifts[-1]['as_of']} as {version(shifts[-1]['champion'])}"


def _trial(trial: Mapping[str, Any]) -> str:
    rival, champion = version(trial["rival"]), version(trial["champion"])
    a_trial = trial["kind"] == Kind.TRIAL
    pair = f"challenger {rival} against champion {champion}" if a_trial else f"champion {champion} against {rival}"
    read = "no outcome is final yet"
    if trial["gain"] is not None:
        bounds = "no bounds yet"
        if trial["low"] is not None and trial["high"] is not None:
            bounds = f"bounds {trial['low']:+.4f} to {trial['high']:+.4f}"
        days = "1 day" if trial["days"] == 1 else f"{trial['days']} days"
        read = (
            f"{rival} saves {trial['gain']:+.4f} log loss a booking ({bounds}) on {trial['bookings']:,} bookings of"
            f" {days}"
        ).replace("-", "−")
    until = f"ends by {trial['last_day']}"
    if trial["asked_until"] is not None:
        until = f"your answer is awaited until {instant(trial['asked_until'])}"
    return f"{pair}, since {trial['opened_on']}: {read}; {until}"


def _bookings(fact: Mapping[str, Any]) -> str:
    if not fact["booked"]:
        return "none was made on these days, or none was loaded"
    made = f"{fact['booked']:,} made on these days and loaded"
    if fact["champion"] is None:
        return made
    scored = "all" if fact["scored"] == fact["booked"] else f"{fact['scored']:,} of them"
    return f"{made}, {scored} scored by {version(fact['champion']['version'])}"


def _days(days: Sequence[str]) -> str:
    shown, more = ", ".join(days[:DAYS_SHOWN]), len(days) - DAYS_SHOWN
    return f"{len(days)} {'day' if len(days) == 1 else 'days'}: {shown}{f' and {more} more' if more > 0 else ''}"
