"""The application inside a flow run, and what all flows do alike."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Any

from prefect import runtime
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from cancellations import settings
from cancellations.bootstrap import App
from cancellations.errors import Refused
from cancellations.usecases.deliver import Delivered
from flows.doorbell import PrefectDoorbell


@cache
def application() -> App:
    """The application of this process, by its environment's settings, with Prefect as doorbell."""
    return App(settings.load(), PrefectDoorbell())


def named(what: str) -> Callable[[], str]:
    """Readable run names: what is done, to which request or version, over which span of event time."""

    def name() -> str:
        given: dict[str, Any] = runtime.flow_run.parameters or {}
        after, until = _day(given.get("after")), _day(given.get("until") or given.get("as_of"))
        subject = given.get("request_id") or given.get("version") or ""
        to = f"to {given['to']}" if given.get("to") else ""
        span = f"{after} to {until}" if after and until else until or ""
        return " ".join(part for part in (what, str(subject), to, span) if part)

    return name


def _day(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value or "")


def refused(error: Refused) -> State[Any]:
    """A rule that says no is an answer, not a failure: the run completes and shows the reason."""
    get_run_logger().warning("refused: %s", error)
    return Completed(name="Refused", message=str(error))


def table(headings: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; bars in values are escaped."""

    def line(values: list[object]) -> str:
        return "| " + " | ".join(str(v).replace("|", "\\|") for v in values) + " |"

    return "\n".join([line(list(headings)), line(["---"] * len(headings)), *map(line, rows)])


def publish(key: str, markdown: str, description: str) -> None:
    """Shows a result in Prefect's UI, under a key that keeps its history."""
    create_markdown_artifact(markdown=markdown, key=key, description=description)


def picture(key: str, png: bytes, description: str) -> None:
    """Shows a picture; as a data URI, which needs no server of its own."""
    address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    create_image_artifact(image_url=address, key=key, description=description)


def link(key: str, address: str | None, text: str) -> None:
    """Shows a link, where there is an address to go to."""
    if address is not None:
        create_link_artifact(link=address, link_text=text, key=key, description=f"{text} in MLflow")


def tell(delivered: Delivered) -> None:
    """One line about what the outbox did; failures are warnings, since they are tried again."""
    log = get_run_logger()
    if delivered.busy:
        log.info("another relay is at work on the outbox")
    elif delivered.sent or delivered.failed:
        log.info("%d messages sent, %d will be tried again", delivered.sent, len(delivered.failed))
    for problem in delivered.failed:
        log.warning(problem)
