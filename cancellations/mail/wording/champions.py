"""Mails about changes of champion, by trial, by a person, by a guard or on probation, and about aliases."""

from __future__ import annotations

from cancellations.domain.aliases import CHAMPION
from cancellations.domain.guards import BY_GUARD, Guard
from cancellations.domain.promotion import Change
from cancellations.mail.wording.sentences import (
    ACKNOWLEDGE,
    CHECK,
    DOCTOR,
    ROLLBACK,
    STATUS,
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


def changed(story: Story) -> Words:
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
            ("Why", sentence(story.fact["reason"])),
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
            ("Why", sentence(story.fact["reason"])),
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
            *((("Why", sentence(story.fact["reason"])),) if asked else ()),
            ("How much it matters", f"{how_much(story)} Every open booking gets {new}'s score from now on."),
            ("What the system did", f"It proved that {new} loads and scores, then {_moved(story)}."),
            _watched(new, old),
        ),
        _undo(story),
    )


def _promoted_by_hand(story: Story) -> Words:
    new, old, by = version(story.fact["version"]), version(story.fact["previous"]), story.fact["by"]
    so_far = f" Its trial had not ended. {how_much(story)}" if story.fact.get("reasons") else ""
    return Words(
        Tone.ATTENTION,
        f"Promoted by {by}: {new} serves in place of {old}, past gate and trial",
        f"The champion was changed by hand ({by}): {new} serves in place of {old}, past gate and trial.",
        (
            ("Why", sentence(story.fact["reason"])),
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
            ("Why", " ".join(sentence(reason) for reason in story.fact["reasons"])),
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
            explain(str(story.fact["previous"])),
            CHECK,
            ACKNOWLEDGE,
            promote(str(story.fact["previous"]), f"puts {bad} back, if the rollback was the mistake"),
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
            ("Why", " ".join(sentence(reason) for reason in story.fact["reasons"])),
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
            explain(str(story.fact["previous"])),
            ACKNOWLEDGE,
            promote(str(story.fact["previous"]), f"puts {bad} back, if the rollback was the mistake"),
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
            ("Why", " ".join(sentence(reason) for reason in story.fact["reasons"])),
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
            explain(str(story.fact["previous"])),
            DOCTOR,
            ACKNOWLEDGE,
            promote(str(story.fact["previous"]), f"puts {bad} back, when that is mended"),
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
    measured = f"{how_much(story)} " if story.fact.get("reasons") else ""
    return Words(
        Tone.TROUBLE if noticed else Tone.ATTENTION,
        f"Rolled back{'' if noticed else f' by {by}'}: {back} serves again in place of {bad}"
        + (", which did worse on probation" if noticed else ""),
        f"Champion {bad} did worse than its predecessor {back} on probation, so {back} serves again."
        if noticed
        else f"Champion {bad} was taken back by hand ({by}), so {back} serves again.",
        (
            *(() if noticed else (("Why", sentence(story.fact["reason"])),)),
            ("How much it matters", f"{measured}Every open booking gets {back}'s score again."),
            ("What the system did", f"It proved that {back} still loads and scores, then {_moved(story)}."),
            (
                "What is different now",
                "Promotions need a person's approval until somebody acknowledges this rollback, and automatic"
                " retraining waits out its cooldown.",
            ),
        ),
        (
            explain(str(story.fact["previous"])),
            ACKNOWLEDGE,
            promote(str(story.fact["previous"]), f"puts {bad} back, if the rollback was the mistake"),
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
            ("Why", sentence(story.fact["reason"])),
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
            explain(str(story.fact["version"])),
            Step(ROLLBACK, f"puts {old} back, and stops the recalibration until somebody acknowledges"),
            STATUS,
        ),
    )


def alias_moved(story: Story) -> Words:
    fact = story.fact
    placed, found = (_holder(fact[name]) for name in ("placed", "found"))
    adopt = "CANCELLATIONS_ALIASES=adopt makes its version champion instead, on the record and on probation"
    steps = [STATUS]
    if fact["found"] is not None and fact["alias"] == CHAMPION:
        steps.insert(0, promote(fact["found"], f"makes {found} champion, proven and on the record"))
    return Words(
        Tone.ATTENTION,
        f"Alias {fact['alias']} was moved in MLflow from {placed} to {found}, and put back",
        f"Somebody, or a program, has moved the alias {fact['alias']} in MLflow from {placed} to {found}; it was"
        f" noticed at {instant(fact['seen_at'])}, and put back.",
        (
            ("Why", sentence(fact["reasons"][-1])),
            (
                "How much it matters",
                "What the hotel is served follows the ledger, and did not change. Whoever reads the alias in MLflow"
                " had the other version meanwhile.",
            ),
            (
                "What the system did",
                f"It wrote it down and moved the alias back. MLflow does not say who it was. {sentence(adopt)}"
                " This is told once until the next change of champion or challenger, however often it happens.",
            ),
        ),
        tuple(steps),
    )


def _holder(number: object) -> str:
    return "nobody" if number is None else version(number)


def _found_better(story: Story) -> bool:
    """Whether a test asked for the change, or a person did without one."""
    if story.fact["trial_id"] is None:
        return False
    return story.trial is None or story.trial.decided_on is not None


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
    return (Step(ROLLBACK, f"puts {old} back at once"), explain(str(story.fact["version"])), STATUS)
