"""The pages say what the code does: commands, settings, thresholds, facts, files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from cancellations import __version__
from cancellations.domain.events import FACTS, Channel
from cancellations.domain.promotion import TrialPolicy
from cancellations.domain.retraining import STRONGEST, RetrainPolicy
from cancellations.settings import MonitorSettings, Settings
from deployments.cli import app
from deployments.doctor.canary import FLOW
from deployments.doctor.expected import declared, triggers
from deployments.doctor.machine import Machine
from deployments.doctor.orchestrator import Orchestrator
from deployments.doctor.services import Services
from monitoring.drift import CATEGORIES, MISSING_DRIFT, NUMBERS

PROJECT = Path(__file__).parents[2]
PAGES = sorted((PROJECT / "docs").glob("*.md"))
OPERATING, MONITORING, TRIALS = (
    (PROJECT / "docs" / f"{name}.md").read_text() for name in ("operating", "monitoring", "trials")
)
LONGEST_PAGE = 120
RUNBOOK = ("What doctor finds", "What a mail asks for")


def names(settings: type, prefix: str = "CANCELLATIONS_") -> Iterator[str]:
    if issubclass(settings, BaseModel):
        fields = {name: field.annotation for name, field in settings.model_fields.items()}
    else:
        fields = {f.name: type(default(f)) for f in dataclasses.fields(settings)}
    for name, kind in fields.items():
        nested = isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))
        if nested:
            yield from names(kind, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


def default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def commands() -> dict[str, str]:
    group = typer.main.get_command(app)
    return {name: command.help or "" for name, command in group.commands.items()}


def test_every_setting_is_named_and_every_group_of_them_explained() -> None:
    told = OPERATING + (PROJECT / ".env.example").read_text()
    assert [name for name in names(Settings) if not re.search(rf"\b{name}\b", told)] == []
    groups = {name.rpartition("__")[0] + "__" for name in names(Settings) if "__" in name}
    assert [group for group in sorted(groups) if f"`{group}`" not in OPERATING] == []


def test_every_command_is_documented_and_none_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `cancellations (\w+)` \|", OPERATING, re.MULTILINE)
    assert sorted(documented) == sorted(commands())


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_has_help_with_an_example_of_itself(command: str) -> None:
    assert f"Example: cancellations {command}" in commands()[command]


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "README.md"], ids=lambda page: page.name)
def test_commands_that_pages_name_exist(page: Path) -> None:
    named = set(re.findall(r"(?:`|^|\$ )cancellations ([a-z]+)\b", page.read_text(), re.MULTILINE))
    assert named <= set(commands())


def test_every_exit_code_of_the_help_is_explained() -> None:
    group = typer.main.get_command(app)
    codes = {code for command in group.commands.values() for code in re.findall(r"\b\d+\b", command.epilog or "")}
    assert codes == set(re.findall(r"^\| (\d+) \|", OPERATING, re.MULTILINE))


def test_the_runbook_has_a_row_for_every_mail_and_every_check_of_the_doctor() -> None:
    runbook = (PROJECT / "docs" / "runbook.md").read_text()
    checks, mails = (runbook.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in RUNBOOK)
    mailed = [fact.topic for fact in FACTS if Channel.MAIL in fact.channels]
    told = {topic.removeprefix("cancellations.").replace(".", " ") for topic in mailed}
    assert told == set(re.findall(r"^\| ([a-z ]+) \|", mails, re.MULTILINE)) - {"mail"}
    parts = (Orchestrator(None), Services(Settings(_env_file=None), None), Machine(Settings(_env_file=None)))
    names = {check.name for part in parts for check in part.checks()} | {FLOW}
    assert names == set(re.findall(r"^\| ([a-z ]+) \|", checks, re.MULTILINE)) - {"check"}


def test_the_page_on_deployments_names_every_deployment_and_automation() -> None:
    page = (PROJECT / "docs" / "deployments.md").read_text()
    rows = [row.split(" | ")[0].removeprefix("| ") for row in page.splitlines() if row.startswith("| ")]
    told = {name for row in rows for name in row.split(", ")}
    deployments = declared()
    assert {d.name for d in deployments} <= told
    assert {trigger.name for _, trigger in triggers(deployments)} <= set(rows)


def test_the_numbers_of_trials_in_the_page_are_the_defaults() -> None:
    policy = TrialPolicy()
    for told in (
        f"`expired` after {policy.max_days} days",
        f"`expired` after {policy.probation_days} days",
        f"have {policy.approval_hours:.0f} hours to answer",
        f"Nothing is decided before {policy.sequence.burn_in_days} days",
        f"chance of {100 * policy.sequence.alpha:.0f} % at most",
    ):
        assert told in " ".join(TRIALS.split())
    assert policy.serve_share == 0.5 and "half of the bookings get the challenger's score" in TRIALS


def test_thresholds_and_weights_in_the_page_are_the_defaults() -> None:
    settings = MonitorSettings()
    limits = {
        "column drift": settings.column_drift,
        "domain classifier": settings.classifier_auc,
        "matured excess loss": settings.excess_loss,
    }
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| ([\d.]+) \| ([\d.]+) \|$", MONITORING, re.MULTILINE)
    assert {name: (float(limit), float(weight)) for name, limit, weight in rows} == {
        name: (limit, settings.weights[name]) for name, limit in limits.items()
    }
    pinned = dict((NUMBERS, CATEGORIES))
    assert f"normed Wasserstein distance | {pinned['wasserstein']:g} |" in MONITORING
    assert f"Jensen-Shannon distance | {pinned['jensenshannon']:g} |" in MONITORING
    assert f"change of the missing share | {MISSING_DRIFT:g} |" in MONITORING
    assert f"| least rows | {settings.min_rows} |" in MONITORING
    assert f"Below {settings.min_matured_rows:,} matured bookings" in MONITORING
    assert f"or {settings.min_recent_rows} recent ones" in MONITORING
    assert f"those made in the last {settings.recent_days} days" in MONITORING


def test_the_evidence_rule_in_the_page_is_the_default_policy() -> None:
    policy, told = RetrainPolicy(), " ".join(MONITORING.split())
    for sentence in (
        f"at most {STRONGEST:g})",
        f"from evidence {policy.evidence_needed:g} on",
        f"{policy.confirm_k} of the last {policy.confirm_n} windows",
        f"A champion of {policy.calendar_floor_days} days",
        f"for {policy.cooldown_days} days after the last request",
        f"after {policy.budget} requests within {policy.budget_days} days",
        f"until {policy.min_new_labels} new outcomes are final",
    ):
        assert sentence in told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_short_and_their_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= LONGEST_PAGE
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_files_that_pages_name_exist() -> None:
    for page in PAGES:
        named = re.findall(r"`((?:cancellations|monitoring|flows|deployments|tests)/[\w/.]+)`", page.read_text())
        assert [path for path in named if not (PROJECT / path).exists()] == []


def test_the_mlflow_entry_point_calls_the_command_with_options_that_it_has() -> None:
    entry = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["retrain"]
    program, command, *arguments = entry["command"].split()
    options = {name for p in typer.main.get_command(app).commands[command].params for name in p.opts}
    assert program == "cancellations"
    assert set(arguments[::2]) <= options
    assert arguments[1::2] == [f"{{{name}}}" for name in entry["parameters"]]


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
