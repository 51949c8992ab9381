"""Options that commands share."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOME = Path(".cancellations")

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="CANCELLATIONS_HOME", help="Folder of databases, models, mails and logs.")
]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="The day that counts as today. Default: the calendar's."),
]
After = Annotated[
    datetime | None,
    typer.Option("--after", formats=["%Y-%m-%d"], help="Only what comes after this day. Default: all."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the facts as one JSON object.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record and for whoever comes next.")]


def day(value: datetime | None) -> date | None:
    return None if value is None else value.date()
