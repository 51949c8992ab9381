"""A change of champion, shown to people: what was done, what was verified, what is not yet as it should be."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Failed

from cancellations.usecases.promote import Takeover
from flows.application import application, link


def asker() -> str:
    """Who started this run, as far as Prefect knows: an automation has a name, people have none."""
    context = FlowRunContext.get()
    made = context.flow_run.created_by if context is not None and context.flow_run is not None else None
    return f"{made.display_value if made is not None and made.display_value else 'a person'}, in Prefect"


def verified(takeover: Takeover) -> str:
    """What was done, and what was found when it was checked, in Markdown; links go beside it."""
    registry = application().registry
    for key, version in (("champion", takeover.version), ("previous", takeover.previous)):
        link(key, registry.version_address(version), f"version {version}")
    served = ", ".join(f"{count:,} by version {version}" for version, count in takeover.served.items())
    alias = "could not be asked" if takeover.alias is None else f"version {takeover.alias}"
    lines = [
        f"**Version {takeover.version} is champion** ({takeover.change}), in place of version {takeover.previous}."
        f" Ledger: epoch {takeover.epoch}.",
        "",
        "- its artifact was loaded anew, and scored, before anything moved",
        f"- open bookings are served: {served or 'there are none'}",
        f"- MLflow's alias `champion`: {alias}",
        *(f"- **problem**: {problem}" for problem in takeover.problems),
    ]
    return "\n".join(lines)


def concluded(champion: str, problems: tuple[str, ...]) -> State | None:
    """The run's state: the change stands, but what is not yet as it should be must not look like success."""
    for problem in problems:
        get_run_logger().warning(problem)
    if not problems:
        return None
    return Failed(name="Needs attention", message=f"version {champion} is champion, but: {'; '.join(problems)}")
