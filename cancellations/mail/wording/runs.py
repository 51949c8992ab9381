"""Mails about flow runs: one that failed, and a flow that completes none."""

from __future__ import annotations

from collections.abc import Mapping

from cancellations.domain.lines import one_line
from cancellations.mail.wording.sentences import DOCTOR, PAUSE, STATUS, Step, Story, Tone, Words, instant

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


def flow_failed(story: Story) -> Words:
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


def flow_silent(story: Story) -> Words:
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
