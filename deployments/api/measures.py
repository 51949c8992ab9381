"""What `/metrics` tells, in Prometheus' form."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

# A row takes a millisecond or so; whoever waits for a second gives up soon.
SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5)


class Measures:
    """Counters and gauges of one API."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"namespace": "cancellations", "registry": self.registry}
        ProcessCollector(**own)
        self.requests = Counter("requests", "Requests by what was asked and how it ended.", ["path", "status"], **own)
        self.seconds = Histogram(
            "request_seconds", "From the first byte to the last.", ["path"], buckets=SECONDS, **own
        )
        self.predictions = Counter("predictions", "Bookings answered for.", ["version", "arm"], **own)
        self.waiting = Gauge("waiting", "Bookings that wait for their answer.", **own)
        self.recorded = Counter("recorded", "Predictions that were new in the store.", **own)
        self.unrecorded = Gauge("unrecorded", "Answers that wait to be recorded.", **own)
        self.dropped = Counter("dropped", "Answers that the store refused, and that are not recorded.", **own)
        self.overtaken = Counter("overtaken", "Answers whose features a batch had fixed meanwhile.", **own)
        self.ready = Gauge("ready", "1 while a champion is loaded and the database can be reached.", **own)
        self.epoch = Gauge("epoch", "Of the ledger, whose champion answers.", **own)
        self.behind = Gauge("behind", "1 while the ledger names what cannot be served.", **own)
        self.slow = Gauge("slow", "1 where a version answers by its pipeline, since the quick way differs.", **own)
        self.serving = Gauge("serving", "1 for each version that answers.", ["version", "role"], **own)
        self.history = Gauge("history_age_seconds", "Age of the remembered past of agents and books.", **own)

    def text(self) -> bytes:
        found: bytes = generate_latest(self.registry)
        return found
