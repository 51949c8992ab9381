"""prefect.yaml fits the flows that it deploys and the facts that its triggers wait for."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.importtools import import_object

from cancellations.domain.events import FACTS, Channel

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


def test_a_run_that_waits_for_a_person_is_never_let_go_by_a_limit() -> None:
    assert "concurrency_limit" not in DEPLOYMENTS["trial"]


@pytest.mark.parametrize(("name", "trigger"), TRIGGERS, ids=[t["name"] for _, t in TRIGGERS])
def test_a_trigger_waits_for_events_that_are_sent_and_passes_parameters_that_its_flow_takes(
    name: str, trigger: dict[str, Any]
) -> None:
    given = trigger.get("parameters", {})
    assert set(given) <= set(deployed(name).parameters.properties)
    for topic in trigger["expect"]:
        if topic.startswith("prefect."):
            continue
        fact = TOPICS[topic]
        kind, _ = fact.about
        assert fnmatch.fnmatch(f"cancellations.{kind}.1", trigger["match"]["prefect.resource.id"])
        asked = {field for text in given.values() for field in re.findall(r"event\.payload\.(\w+)", str(text))}
        assert asked <= {field.name for field in dataclasses.fields(fact)}
