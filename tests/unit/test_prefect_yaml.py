"""prefect.yaml fits the flows that it deploys and the facts that its triggers wait for."""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import json
import re
from pathlib import Path
from typing import Any

import prefect.server.api
import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.importtools import import_object
from pydantic import TypeAdapter, ValidationError

from cancellations.domain.events import FACTS, Channel
from flows.canary import EVENT

PROJECT = Path(__file__).parents[2]
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    d["name"]: d for d in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
}
TRIGGERS = [(name, t) for name, d in DEPLOYMENTS.items() for t in d.get("triggers", [])]
TOPICS = {fact.topic: fact for fact in FACTS if Channel.EVENT in fact.channels}


def deployed(name: str) -> Flow[..., Any]:
    file, function = DEPLOYMENTS[name]["entrypoint"].split(":")
    found = import_object(f"{file.removesuffix('.py').replace('/', '.')}.{function}")
    assert isinstance(found, Flow)
    return found


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_is_named_as_its_flow_and_says_what_it_does(name: str) -> None:
    assert deployed(name).name == name
    assert DEPLOYMENTS[name]["description"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_prefects_form_explains_every_parameter(name: str) -> None:
    fields = deployed(name).parameters.properties
    assert [field for field, schema in fields.items() if not schema.get("description")] == []


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_has_tags_the_codes_version_a_pool_and_a_limit_or_a_reason(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert "cancellations" in deployment["tags"] and len(deployment["tags"]) == 2
    assert deployment["version"] == "{{ code.version }}"
    assert deployment["work_pool"]["name"] == "cancellations"
    limit = deployment.get("concurrency_limit")
    assert (limit is None) is (name in ("trial", "canary"))
    assert limit is None or (limit["limit"] == 1 and limit["collision_strategy"] in ("ENQUEUE", "CANCEL_NEW"))


def test_what_is_meant_once_each_time_is_never_let_go_by_its_limit() -> None:
    let_go = {
        n for n, d in DEPLOYMENTS.items() if d.get("concurrency_limit", {}).get("collision_strategy") == "CANCEL_NEW"
    }
    assert let_go == {"ingest", "score", "monitor", "deliver"}
    assert all(DEPLOYMENTS[name]["schedules"] for name in let_go)


@pytest.mark.parametrize("name", [n for n, d in DEPLOYMENTS.items() if "schedules" in d])
def test_schedules_are_ones_that_prefect_takes_and_one_variable_switches_them_all(name: str) -> None:
    for schedule in DEPLOYMENTS[name]["schedules"]:
        assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).timezone == "UTC"
        assert schedule["active"] == "{{ $CANCELLATIONS_SCHEDULES }}"
        assert re.fullmatch(r"[a-z-]+", schedule["slug"])


def templates() -> dict[str, set[str]]:
    """Job variables that a kind of work pool takes, as Prefect ships them."""
    shipped = Path(inspect.getfile(prefect.server.api)).parent / "collections_data/views/aggregate-worker-metadata.json"
    workers = json.loads(shipped.read_text())
    kinds = {"process": "prefect", "docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}
    return {
        kind: set(workers[package][kind]["default_base_job_configuration"]["variables"]["properties"])
        for kind, package in kinds.items()
    }


def test_job_variables_are_ones_that_process_pools_take() -> None:
    # Prefect accepts any other in silence.
    assert all(d["work_pool"]["job_variables"].keys() <= templates()["process"] for d in DEPLOYMENTS.values())


def test_job_variables_of_other_pools_in_the_page_are_ones_that_they_take() -> None:
    page = (PROJECT / "docs" / "deployments.md").read_text()
    table = page.partition("| process | Docker | Kubernetes |")[2].partition("\n\n")[0].splitlines()[2:]
    told: dict[str, set[str]] = {"process": set(), "docker": set(), "kubernetes": set()}
    for row in table:
        for kind, cell in zip(told, row.split("|")[1:4], strict=True):
            told[kind] |= set(re.findall(r"`(\w+)`", cell))
    assert all(told[kind] and told[kind] <= taken for kind, taken in templates().items())


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("reconcile", {"patience_seconds": -1}),
        ("reconcile", {"patience_seconds": "soon"}),
        ("retrain", {"as_of": "yesterday"}),
        ("retrain", {"request_id": ""}),
        ("promote", {"version": "two", "reason": "why"}),
        ("promote", {"version": "2", "reason": ""}),
        ("promote", {"version": "2"}),
        ("rollback", {"reason": ""}),
        ("rollback", {"reason": "why", "to": "the last one"}),
        ("ingest", {"source": ""}),
        ("canary", {"token": ""}),
        ("alarm", {"flow_name": ""}),
    ],
)
def test_parameters_that_mean_nothing_are_refused_before_a_run_begins(name: str, given: dict[str, Any]) -> None:
    flow = deployed(name)
    with pytest.raises((ParameterTypeError, ParameterBindError, SignatureMismatchError, ValidationError)):
        flow.validate_parameters(flow_parameters(flow, given))


def flow_parameters(flow: Flow[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    return get_call_parameters(flow.fn, (), given)


@pytest.mark.parametrize(("name", "trigger"), TRIGGERS, ids=[t["name"] for _, t in TRIGGERS])
def test_a_trigger_is_one_that_prefect_takes(name: str, trigger: dict[str, Any]) -> None:
    enabled = trigger["enabled"]
    # Either on, or with the schedules: then the text of a variable stands here.
    assert enabled is True or enabled == "{{ $CANCELLATIONS_SCHEDULES }}"
    checked: Any = TypeAdapter(DeploymentTriggerTypes).validate_python({**trigger, "enabled": True})
    assert checked.description and checked.name == trigger["name"]
    assert len({t["name"] for _, t in TRIGGERS}) == len(TRIGGERS)


def flows_of(trigger: str) -> set[str]:
    [found] = [t for _, t in TRIGGERS if t["name"] == trigger]
    return set(found["match_related"]["prefect.resource.name"])


def test_a_failed_run_of_any_flow_is_told_but_for_those_that_tell_it_themselves() -> None:
    assert flows_of("tell of a failed run") == set(DEPLOYMENTS) - {"retrain", "alarm", "canary"}


def test_silence_is_told_of_the_flows_that_run_every_few_minutes() -> None:
    often = {n for n, d in DEPLOYMENTS.items() if any("/" in s["cron"].split()[0] for s in d.get("schedules", []))}
    assert flows_of("tell of a silent flow") == often


def test_no_automation_but_its_own_answers_a_canary() -> None:
    answering = [t["name"] for _, t in TRIGGERS if any(fnmatch.fnmatch(EVENT, topic) for topic in t["expect"])]
    assert answering == ["answer the canary"]
    [own] = [t for name, t in TRIGGERS if name == "canary"]
    assert fnmatch.fnmatch("cancellations.canary.7", own["match"]["prefect.resource.id"])


def test_a_run_that_waits_for_a_person_is_never_let_go_by_a_limit() -> None:
    assert "concurrency_limit" not in DEPLOYMENTS["trial"]


@pytest.mark.parametrize(("name", "trigger"), TRIGGERS, ids=[t["name"] for _, t in TRIGGERS])
def test_a_trigger_waits_for_events_that_are_sent_and_passes_parameters_that_its_flow_takes(
    name: str, trigger: dict[str, Any]
) -> None:
    given = trigger.get("parameters", {})
    assert set(given) <= set(deployed(name).parameters.properties)
    for topic in trigger["expect"]:
        if topic.startswith("prefect.") or topic == EVENT:
            continue
        fact = TOPICS[topic]
        kind, _ = fact.about
        assert fnmatch.fnmatch(f"cancellations.{kind}.1", trigger["match"]["prefect.resource.id"])
        asked = {field for text in given.values() for field in re.findall(r"event\.payload\.(\w+)", str(text))}
        assert asked <= {field.name for field in dataclasses.fields(fact)}
