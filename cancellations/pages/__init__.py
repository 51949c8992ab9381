"""The report page: one self-contained HTML file that needs no script, no network and no style sheet beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cancellations.domain.lines import column_lines, one_line, reference_lines, signal_lines
from cancellations.domain.promotion import Kind, Trial
from cancellations.domain.retraining import Action
from cancellations.ports import Overview

# Columns that are shown against every reference, those that matter most.
BESIDE = 10
# More changes of champion than these are history; `cancellations history` has all of them.
CHANGES = 20
# Says what a place shows to whoever cannot see it; the tables hold the figures.
TOLD = {
    "drift": "Which columns drifted, by how much and how much they weigh; the deciding signals over all windows",
    "columns": "The columns that matter most, in the reference and in this window",
    "scores": "The scores given in the reference and in this window; what became of bookings that are final",
    "losses": "Realised loss, calibration bias and estimated loss of every look",
    "time_line": "Champions, trials, retrains and rollbacks over time, with the evidence of every look",
}
CALM, ACTED, HELD = "#24557a", "#c8553d", "#b07d12"

_TEMPLATES = Environment(
    loader=PackageLoader("cancellations.pages"),
    autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class ChangeLine:
    """A change of champion or challenger, as the table shows it."""

    day: str
    change: str
    champion: str
    challenger: str
    by: str
    reason: str


def write(
    found: Overview,
    pictures: Mapping[str, bytes],
    links: Mapping[str, str],
    environment: str,
    now: datetime,
) -> str:
    """The page of a window as HTML; `pictures` are PNG by the names of `TOLD`, `links` addresses by what they show."""
    stored, report = found.stored, found.stored.report
    action = stored.decision.action
    rows = found.ledger[-CHANGES:]
    running = next((trial for trial in reversed(found.trials) if not trial.state.final), None)
    return _TEMPLATES.get_template("report.html.j2").render(
        environment=one_line(environment),
        verdict=_verdict(action),
        tone=ACTED if action.retrains else HELD if action is Action.HOLD else CALM,
        report=report,
        stored=stored,
        champion=found.champion,
        reasons=[one_line(reason) for reason in stored.decision.reasons],
        signals=signal_lines(report),
        columns=column_lines(report),
        references=[(one_line(each.reference), each.reference_rows) for each in (report, *found.beside)],
        beside=reference_lines([report, *found.beside], BESIDE),
        checks=[(day.day, day.bookings, [one_line(finding) for finding in day.findings]) for day in found.checks],
        running=None if running is None else _course(running),
        changes=[
            ChangeLine(
                str(row.as_of),
                row.change.value,
                _version(row.champion),
                _version(row.challenger),
                one_line(row.by),
                one_line(row.reason),
            )
            for row in reversed(rows)
        ],
        older=len(found.ledger) - len(rows),
        pictures={
            name: (f"data:image/png;base64,{base64.b64encode(png).decode()}", TOLD[name])
            for name, png in pictures.items()
        },
        # A page is a place where people click: nothing but web addresses becomes a link.
        links={one_line(k): v for k, v in links.items() if v.startswith(("http://", "https://"))},
        now=now,
    )


def _verdict(action: Action) -> str:
    return {
        Action.NONE: "No retrain: nothing asks for one",
        Action.HOLD: "No retrain: there is a reason for one, and a rule that holds it",
        Action.RETRAIN_DRIFT: "Retrain: the drift is confirmed",
        Action.RETRAIN_CALENDAR: "Retrain: the champion is past its calendar floor",
    }[action]


def _version(version: str | None) -> str:
    return "–" if version is None else f"v{one_line(version)}"


def _course(trial: Trial) -> str:
    who = (
        f"challenger {_version(trial.rival)} against champion {_version(trial.champion)}"
        if trial.kind is Kind.TRIAL
        else f"champion {_version(trial.champion)} against its predecessor {_version(trial.rival)}"
    )
    read = "no booking read yet"
    if trial.evidence:
        step = trial.evidence[-1]
        bounds = "no bounds yet" if step.low is None or step.high is None else f"{step.low:+.4f} to {step.high:+.4f}"
        read = f"{step.bookings:,} bookings read until {step.day}, {step.gain:+.4f} a booking ({bounds})"
    return f"{trial.kind.value} of {who}, {trial.state.value}: {read}; it ends by {trial.last_day}"
