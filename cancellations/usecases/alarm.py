"""Tells owners what an orchestrator has seen of its runs: that they fail, or that there are none."""

from __future__ import annotations

from datetime import datetime

from cancellations.domain.events import FlowFailed, FlowSilent
from cancellations.ports import Store


def tell_failed(
    store: Store, *, flow: str, run_id: str, run: str, state: str, said: str, at: datetime, now: datetime
) -> FlowFailed:
    """Writes a mail about a run that ended in an error; asked again about the same run it writes no other."""
    fact = FlowFailed(flow, run_id, run, state, said, at)
    with store.begin() as work:
        work.add_messages(fact.messages(), now)
        work.commit()
    return fact


def tell_silent(store: Store, *, flow: str, since: datetime | None, hours: int, now: datetime) -> FlowSilent:
    """Writes a mail about a flow that has completed no run since a moment; one for each silence."""
    fact = FlowSilent(flow, since, hours)
    with store.begin() as work:
        work.add_messages(fact.messages(), now)
        work.commit()
    return fact
