"""The registry's aliases beside the ledger: who moved one, we or somebody else?

Our aliases follow the ledger, and may be late: a process can die, or be slow, between the ledger and
the registry. Each time that we put them in place is written down before and after. An alias that
stands where we put it last, or where somebody of us may just be putting it, is late; anywhere else it
was moved by somebody whom the registry does not name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cancellations.domain.promotion import LedgerRow, Standing

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHAMPION, CHALLENGER)
# A process that has begun to move aliases is not waited for any longer; each move takes milliseconds.
SLOWEST = timedelta(minutes=15)


class AliasPolicy(StrEnum):
    """What becomes of an alias champion that somebody has moved in the registry."""

    UNDO = "undo"  # it is put back
    ADOPT = "adopt"  # its version is made champion, as if a person had promoted it


@dataclass(frozen=True)
class Placement:
    """Somebody of us has begun to put the aliases where an epoch of the ledger has them.

    `finished` counts those that were done, in the order in which they were; None: not yet, or never.
    """

    epoch: int
    finished: int | None


@dataclass(frozen=True)
class AliasMove:
    """An alias that somebody has moved: from where we had put it to `found` (None: taken away), at an `epoch`.

    `seen_at` is when it was noticed, `times` how often in that epoch; `reason` why it was put back.
    """

    alias: str
    placed: str | None
    found: str | None
    epoch: int
    reason: str
    seen_at: datetime
    times: int = 1

    def __str__(self) -> str:
        return (
            f"alias {self.alias!r} was moved from {version_or_nobody(self.placed)} to"
            f" {version_or_nobody(self.found)} in MLflow, by whom it does not say"
        )


def version_or_nobody(version: str | None) -> str:
    return "nobody" if version is None else f"version {version}"


def expected(standing: Standing | LedgerRow) -> dict[str, str]:
    """Aliases as the ledger wants them; a place that nobody holds has no alias."""
    wanted = {CHAMPION: standing.champion, CHALLENGER: standing.challenger}
    return {alias: version for alias, version in wanted.items() if version is not None}


def moved_by_somebody(
    found: Mapping[str, str], ledger: Sequence[LedgerRow], placements: Sequence[Placement]
) -> dict[str, tuple[str | None, str | None]]:
    """Aliases that stand where nobody of us has put them: where we had them, and where they are.

    `found`: aliases as the registry has them; `placements`: the one that was finished last, and those that were not
    finished. Before the first was finished nothing is known of where they stood, and nobody is blamed.
    """
    last = max((p for p in placements if p.finished is not None), key=lambda p: p.finished or 0, default=None)
    if not ledger or last is None:
        return {}
    # Before the first champion nobody has an alias.
    by_epoch: dict[int, dict[str, str]] = {0: {}} | {row.epoch: expected(row) for row in ledger}
    own = [by_epoch[p.epoch] for p in placements if p.finished is None or p == last]
    wanted, before = expected(ledger[-1]), by_epoch[last.epoch]
    return {
        alias: (before.get(alias), found.get(alias))
        for alias in ALIASES
        if found.get(alias) != wanted.get(alias) and all(found.get(alias) != put.get(alias) for put in own)
    }
