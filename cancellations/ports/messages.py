"""What leaves the house: mails, tables, and the orchestrator's bell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from cancellations.domain.events import Message
from cancellations.domain.promotion import Trial
from cancellations.ports.store import StoredDecision


@dataclass(frozen=True)
class Letter:
    """A mail before it is written: a message, what it is about, its picture, addresses for links.

    `page` is Evidently's page of the decision (HTML), where it asked for a retrain. `told` are letters of the mails
    that a digest tells of, those kept for it and those that left by themselves.
    """

    message: Message
    decision: StoredDecision | None = None
    trial: Trial | None = None
    picture: bytes | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    page: bytes | None = None
    told: tuple[Letter, ...] = ()


class Mailer(Protocol):
    def send(self, letter: Letter) -> None:
        """Returns when the mail has been taken for every reader, at once where its kind has none.

        Raises `ServiceDown` when the server can't be reached or refuses for now."""
        ...


class Exports(Protocol):
    """Where tables go that others read. Each way replaces what it wrote before, whole or not at all."""

    def to_file(self, table: pd.DataFrame, path: Path) -> None:
        """Writes a `.csv` or `.parquet`; raises `BadInput` for any other name, or where it cannot."""
        ...

    def to_folder(
        self, tables: Mapping[str, pd.DataFrame], pictures: Mapping[str, bytes], folder: Path
    ) -> tuple[Path, ...]:
        """Makes a folder of one CSV for each table and the pictures, in place of the one that it made
        before; returns its files. Raises `BadInput` for a folder that holds anything else."""
        ...

    def to_database(self, tables: Mapping[str, pd.DataFrame], url: str) -> str:
        """Replaces the rows of tables of these names in one transaction, and makes those that are missing;
        returns the address without its password. Raises `BadInput` for a table of other columns or an
        address that cannot be used, `ServiceDown` for a database that does not answer."""
        ...


class Doorbell(Protocol):
    """The orchestrator, seen from here: it can be rung, and told to start a retrain."""

    def ring(self, message: Message) -> None:
        """Delivers an event with the message's id; raises `ServiceDown` when it can't."""
        ...

    def start_retrain(self, request_id: str, attempt: int) -> str:
        """Starts the retrain flow for a request, unless a run of this attempt is on its way already;
        returns the id of that one run."""
        ...
