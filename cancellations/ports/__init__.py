"""What the use cases need of the outside, as Protocols; adapters in other rooms satisfy them.

Two clocks run through these signatures. Event time is a `date` called `as_of` or named for its
meaning; it drives the business and can be any day of the past. Wall time is a timezone-aware UTC
`datetime` called `now`; it drives leases, retries and records, and is always passed in.
"""

from __future__ import annotations

from cancellations.ports.messages import Doorbell, Exports, Letter, Mailer
from cancellations.ports.monitor import Measurement, Monitor, Observation, Overview, Pictures
from cancellations.ports.registry import (
    Candidate,
    Classifier,
    Contestant,
    Environment,
    Evaluator,
    Reason,
    Registry,
    RowClassifier,
    Shifter,
    Trainer,
)
from cancellations.ports.sources import Source, SourceBatch, Undated
from cancellations.ports.store import (
    Booked,
    Load,
    LoadContent,
    LoadCounts,
    LoadState,
    MessageState,
    OutboxEntry,
    Quarantined,
    QuarantinedRow,
    QuarantineState,
    Store,
    StoredDecision,
    UnitOfWork,
    Upserted,
    VersionRecord,
)

__all__ = [
    "Booked",
    "Candidate",
    "Classifier",
    "Contestant",
    "Doorbell",
    "Environment",
    "Evaluator",
    "Exports",
    "Letter",
    "Load",
    "LoadContent",
    "LoadCounts",
    "LoadState",
    "Mailer",
    "Measurement",
    "MessageState",
    "Monitor",
    "Observation",
    "OutboxEntry",
    "Overview",
    "Pictures",
    "QuarantineState",
    "Quarantined",
    "QuarantinedRow",
    "Reason",
    "Registry",
    "RowClassifier",
    "Shifter",
    "Source",
    "SourceBatch",
    "Store",
    "StoredDecision",
    "Trainer",
    "Undated",
    "UnitOfWork",
    "Upserted",
    "VersionRecord",
]
