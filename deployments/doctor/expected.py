"""What this version's prefect.yaml deploys: deployments with their schedules, and automations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cancellations.errors import BadInput
from flows.version import PROJECT, code_version

DEPLOY = "prefect --no-prompt deploy --all"
# Half a second sooner than the one that is written in Python.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Trigger:
    """An automation that belongs to a deployment, as prefect.yaml declares it."""

    name: str
    declared: Mapping[str, Any]

    @property
    def always(self) -> bool:
        """Whether it is on wherever it is deployed, and not by the environment."""
        return self.declared.get("enabled", True) is True

    def differences(self, found: Mapping[str, Any], deployment_id: str) -> list[str]:
        """Fields of a server's automation that are not as declared, and its action when that starts something else.

        Fields that are not declared have Prefect's defaults, which may change with its version.
        """
        actual = found["trigger"]
        fields = ("type", "expect", "after", "match", "match_related", "for_each", "posture", "threshold", "within")
        wrong = [
            field
            for field in fields
            if field in self.declared and _plain(self.declared[field]) != _plain(actual.get(field))
        ]
        starts = [a for a in found["actions"] if a.get("type") == "run-deployment"]
        if [a.get("deployment_id") for a in starts] != [deployment_id]:
            wrong.append("the deployment that it starts")
        elif _plain(self.declared.get("parameters", {})) != _plain(starts[0].get("parameters") or {}):
            wrong.append("parameters")
        return wrong


@dataclass(frozen=True)
class Deployment:
    """A deployment as prefect.yaml declares it; its flow has the same name."""

    name: str
    entrypoint: str
    pool: str
    schedules: tuple[Mapping[str, Any], ...]
    limit: int | None
    triggers: tuple[Trigger, ...]

    def differences(self, found: Mapping[str, Any], version: str) -> list[str]:
        """What of a server's deployment is not as declared, a phrase each."""
        limit = (found.get("global_concurrency_limit") or {}).get("limit")
        values = {
            "entrypoint": (found["entrypoint"], self.entrypoint),
            "work pool": (found["work_pool_name"], self.pool),
            "concurrency limit": (limit, self.limit),
            "version": (found["version"], version),
        }
        wrong = [f"{name} {is_!r}, not {wanted!r}" for name, (is_, wanted) in values.items() if is_ != wanted]
        there = {schedule.get("slug"): schedule for schedule in found["schedules"]}
        for schedule in self.schedules:
            actual = there.pop(schedule["slug"], None)
            if actual is None:
                wrong.append(f"schedule {schedule['slug']!r} is missing")
                continue
            when = actual["schedule"]
            if (when.get("cron"), when.get("timezone")) != (schedule["cron"], schedule["timezone"]):
                wrong.append(f"schedule {schedule['slug']!r} is {when.get('cron')!r}, not {schedule['cron']!r}")
        return wrong


def declared(project: Path = PROJECT) -> list[Deployment]:
    """Raises `BadInput` where there is no prefect.yaml to read."""
    file = project / "prefect.yaml"
    try:
        told = yaml.load(file.read_text(), Loader=_LOADER)["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput(f"{file} cannot be read ({error}); run this from a checkout of the project") from error
    return [
        Deployment(
            name=each["name"],
            entrypoint=each["entrypoint"],
            pool=each["work_pool"]["name"],
            schedules=tuple(each.get("schedules", ())),
            limit=(each.get("concurrency_limit") or {}).get("limit"),
            triggers=tuple(Trigger(trigger["name"], trigger) for trigger in each.get("triggers", ())),
        )
        for each in told
    ]


def version() -> str:
    """The version that a deploy from here gives to each deployment."""
    return code_version()


def _plain(value: Any) -> Any:
    """Values as they compare: sets have no order, numbers one type, a specification with one value no list."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        inner = sorted((_plain(each) for each in value), key=repr)
        return inner[0] if len(inner) == 1 else inner
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def triggers(deployments: list[Deployment]) -> Iterator[tuple[Deployment, Trigger]]:
    for deployment in deployments:
        for trigger in deployment.triggers:
            yield deployment, trigger
