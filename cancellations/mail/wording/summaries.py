"""Mails that sum up: the morning's outlook, and the digest of a week."""

from __future__ import annotations

from datetime import date
from itertools import groupby
from operator import itemgetter

from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Change, Kind, TrialState
from cancellations.domain.retraining import Action, RequestState, Verdict
from cancellations.mail.wording.sentences import (
    ACKNOWLEDGE,
    CHECK,
    PAUSE,
    RESUME,
    STATUS,
    WITHDRAW,
    Payload,
    Step,
    Story,
    Tone,
    Words,
    in_days,
    instant,
    promote,
    sentence,
    version,
    weight_of_evidence,
)


def outlook(story: Story) -> Words:
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


def digest(story: Story) -> Words:
    fact = story.fact
    needed = _needed(fact)
    alarms = story.report is not None and any(s.verdict is Verdict.ALARM for s in story.report.signals)
    quiet = not alarms and not fact["changes"] and all(look["action"] == Action.NONE for look in fact["looks"])
    days = f"{fact['since']} to {fact['until']}"
    champion, found, others = _of_the_champion(fact), _of_the_looks(fact), _of_the_rest(fact)
    matters = weight_of_evidence(story.report) or (
        ("How much it matters", "No look has been taken yet, so whether forecasts hold is not known."),
    )
    rest = f" {sentence(', '.join(others))}" if others else ""
    return Words(
        Tone.ATTENTION if needed else Tone.GOOD if quiet else Tone.NEWS,
        f"{_span(fact)}: {', '.join((champion, found, *others))}",
        f"{sentence(f'{days}: {champion}, {found}')}{rest}",
        (
            ("What needs you", sentence("; ".join(needed)) if needed else "Nothing."),
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
        f"data broken on {in_days(broken)}" if broken else "",
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
            steps.append(promote(trial["rival"], "says yes"))
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
