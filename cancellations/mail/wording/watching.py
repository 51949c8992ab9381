"""Mails about what the monitor and the checks found: drift, alarms, broken data, a silent source."""

from __future__ import annotations

from collections.abc import Mapping

from cancellations.mail.wording.sentences import (
    CHECK,
    PAUSE,
    STATUS,
    Advice,
    Step,
    Story,
    Tone,
    Words,
    harm_done,
    in_days,
    version,
    weight_of_evidence,
)


def drift(story: Story) -> Words:
    champion = version(story.fact["champion"])
    window = f"{story.fact['window_start']} to {story.fact['window_end']}"
    return Words(
        Tone.ATTENTION,
        f"Drift confirmed in bookings of {window}: retrain requested (champion {champion})",
        f"Drift is confirmed: bookings made {window} are unlike those that champion {champion} learned from."
        " A retrain is requested.",
        (*weight_of_evidence(story.report), _requested(champion)),
    )


def due(story: Story) -> Words:
    champion = version(story.fact["champion"])
    window = f"{story.fact['window_start']} to {story.fact['window_end']}"
    return Words(
        Tone.NEWS,
        f"Champion {champion} is past its calendar floor: retrain requested (bookings of {window})",
        f"Champion {champion} is old enough to be retrained on the calendar; drift is not confirmed."
        " A retrain is requested.",
        (*weight_of_evidence(story.report), _requested(champion)),
    )


def alarmed(story: Story) -> Words:
    fact, champion = story.fact, version(story.fact["champion"])
    what = ADVICE.get(fact["signal"], Advice(f"{fact['signal']} alarms", "", "Look at the report below."))
    return Words(
        Tone.ATTENTION,
        f"{what.subject}: {fact['before']}, {fact['after']}",
        f"{what.subject}: {fact['before']}, {fact['after']} (on {fact['window_end']}, champion {champion}).",
        (
            ("How much it matters", f"{what.harm} {harm_done(story.report) if story.report else ''}".strip()),
            ("Look here first", what.look),
            (
                "What the system did",
                f"Nothing but this mail: the signal is no reason to retrain by itself. Champion {champion} keeps"
                " serving, and no further mail comes while the alarm lasts.",
            ),
        ),
        (STATUS, Step(f"cancellations explain {fact['champion']}", "shows this look and the ones before it"), PAUSE),
    )


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


def data_broken(story: Story) -> Words:
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


def silent(story: Story) -> Words:
    fact = story.fact
    days, longest = (in_days(fact[name]) for name in ("days", "longest"))
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


def _requested(champion: str) -> tuple[str, str]:
    return (
        "What the system did",
        f"It requested a retrain, which starts by itself. Champion {champion} keeps serving; a new version"
        " has to pass a test against it first.",
    )
