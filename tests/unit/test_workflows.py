"""The public workflows run commands that exist, with options that they have, from pinned actions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deployments.cli import app

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").glob("*.yml"))
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def calls() -> list[list[str]]:
    lines = [line.strip() for w in WORKFLOWS for step in steps(w) for line in str(step.get("run", "")).splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(".venv/bin/cancellations ")]


def test_the_workflow_of_the_model_trains_gates_and_asks_before_it_deploys() -> None:
    assert {call[0] for call in calls()} >= {"init", "ingest", "retrain", "release", "status"}
    assert [("--approve" in call) for call in calls() if call[0] == "release"] == [False, True]
    jobs = yaml.safe_load((WORKFLOWS[0].parent / "model.yml").read_text())["jobs"]
    assert jobs["approve"]["environment"] == "production" and jobs["approve"]["needs"] == "candidate"


@pytest.mark.parametrize("call", calls(), ids=" ".join)
def test_a_command_exists_with_its_options(call: list[str]) -> None:
    known = {option for parameter in COMMANDS[call[0]].params for option in parameter.opts}
    assert {word for word in call[1:] if word.startswith("--")} <= known


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_rights_that_it_does_not_need_and_runs_nothing_unpinned(workflow: Path) -> None:
    told = yaml.safe_load(workflow.read_text())
    assert told["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in told["jobs"].values())
    for step in steps(workflow):
        assert "uses" not in step or re.search(r"@v\d+", step["uses"])
        run = str(step.get("run", ""))
        # What somebody else chooses, as the name of a branch, never becomes part of a script.
        assert "${{" not in run
        assert all(re.search(r"==\d", line) for line in run.splitlines() if line.startswith("pip install"))


def test_packages_and_history_are_looked_through() -> None:
    scripts = "\n".join(str(step.get("run", "")) for w in WORKFLOWS for step in steps(w))
    assert re.search(r"pip-audit --requirement requirements\.lock --require-hashes", scripts)
    assert re.search(r"gitleaks:v\d+\.\d+\.\d+ git", scripts)
