"""The command that looks a live installation over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cancellations import home as homes
from cancellations.domain.health import Finding, Verdict, healthy
from cancellations.errors import BadInput, ServiceDown
from deployments import live
from deployments.commands.options import DEFAULT_HOME, HomeOption, Json
from deployments.console import Voice, harmless, print_json

if TYPE_CHECKING:
    from cancellations.settings import Settings
    from deployments.doctor.canary import Canary
    from deployments.doctor.server import PrefectServer

STYLES = {Verdict.RIGHT: "green", Verdict.NOTICE: "yellow", Verdict.WRONG: "bold red", Verdict.UNKNOWN: "red"}
TO_MEND = 1


def doctor(
    home: HomeOption = DEFAULT_HOME,
    canary: Annotated[
        bool, typer.Option("--canary", help="Also send an event through Prefect, and wait for the run that answers it.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="That a check may take. Default: the settings'.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look a live installation over and say what to mend: servers, worker, deployments, database, mail, disk, clock.

    Deploys nothing and changes nothing. Exits with 1 when something has to be mended.

    Example: cancellations doctor --canary
    """
    settings = _settings(home)
    from deployments.doctor.server import PrefectServer

    server = PrefectServer.known()
    voice = Voice()
    with voice.working("looking"):
        findings = _examine(settings, server, timeout or settings.doctor.timeout_seconds)
    seconds: dict[str, float] = {}
    if canary:
        with voice.working("waiting for the canary"):
            found, seconds = _fly(server, settings.doctor.canary_seconds)
        findings += found
    if as_json:
        told: dict[str, Any] = {"healthy": healthy(findings), "findings": findings}
        print_json(told | ({"canary": seconds} if canary else {}))
    else:
        _tell(findings, voice)
    if not healthy(findings):
        raise typer.Exit(TO_MEND)


def _settings(home: Path) -> Settings:
    """Settings of a home that exists, which is left as it is; addresses of the stack that runs on it count."""
    if not (home / homes.MARKER).is_file():
        raise BadInput(f"there is no home in {home}; make one with: cancellations init --home {home}")
    homes.check(home)
    for name, value in live.addresses(home).items():
        os.environ.setdefault(name, value)
    from cancellations import settings

    return settings.load(home=home.absolute())


def _examine(settings: Settings, server: PrefectServer | None, limit: float) -> list[Finding]:
    # Before any clock runs, and in one thread: it takes seconds.
    from cancellations.bootstrap import import_mlflow
    from deployments.doctor import examine
    from deployments.doctor.machine import Machine
    from deployments.doctor.orchestrator import Orchestrator
    from deployments.doctor.services import Services

    import_mlflow()
    parts = (Orchestrator(server), Services(settings, server), Machine(settings))
    return examine([check for part in parts for check in part.checks()], limit)


def _fly(server: PrefectServer | None, limit: float) -> tuple[list[Finding], dict[str, float]]:
    from deployments.doctor.canary import FLOW, Canary

    if server is None:
        return [Finding(FLOW, "PREFECT_API_URL", Verdict.UNKNOWN, "no Prefect server is named")], {}
    bird: Canary = Canary(server)
    try:
        return bird.fly(limit), bird.seconds
    except ServiceDown as error:
        return [Finding(FLOW, server.address, Verdict.UNKNOWN, f"could not be sent or followed: {error}")], bird.seconds


def _tell(findings: Sequence[Finding], voice: Voice) -> None:
    """A table on a terminal; elsewhere a line for each finding, with its remedy below."""
    if voice.console.is_terminal:
        _tell_table(findings, voice)
    else:
        for finding in findings:
            voice.say(f"{finding.verdict:<8} {finding.check:<15} {finding.where}: {finding.what}")
            if finding.remedy and finding.verdict is not Verdict.RIGHT:
                voice.say(f"{'':<8} {'':<15} -> {finding.remedy}")
    count = sum(finding.to_mend for finding in findings)
    if count:
        voice.say(f"{count} of {len(findings)} findings need mending; docs/runbook.md says more of each", "bold")
    else:
        voice.say("nothing has to be mended", "bold")


def _tell_table(findings: Sequence[Finding], voice: Voice) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "where", "what was found, and the command that mends it")
    for finding in findings:
        told = Text(harmless(finding.what))
        if finding.remedy and finding.verdict is not Verdict.RIGHT:
            told.append(f"\n{harmless(finding.remedy)}", style="bold")
        table.add_row(
            finding.check, Text(finding.verdict, STYLES[finding.verdict]), Text(harmless(finding.where)), told
        )
    # A table has its own width, whatever soft wrapping lines have.
    voice.console.print(table, soft_wrap=False)
