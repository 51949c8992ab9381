"""The tiny flow that answers `cancellations doctor --canary`."""

from __future__ import annotations

import socket

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.parameters import Said
from flows.version import code_version

# The event that the automation of prefect.yaml answers; it is about `cancellations.canary.TOKEN`.
EVENT = "cancellations.canary.sent"


@flow(name="canary", flow_run_name="canary {token}")
def canary(token: Said) -> State:
    """Says the token of its event back, with the version of the code that it ran and the machine's name.

    It reads nothing, writes nothing and starts nothing: it shows that events, automations and a worker are alive.

    Args:
        token: What the event carried, to be said back.
    """
    return Completed(message=f"{token} {code_version()} {socket.gethostname()}")
