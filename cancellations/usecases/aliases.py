"""The registry's aliases as a projection of our ledger, and whether the two agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cancellations.domain.aliases import ALIASES, AliasMove, expected, moved_by_somebody, version_or_nobody
from cancellations.domain.events import AliasMoved
from cancellations.domain.promotion import Standing
from cancellations.ports import Registry, Store

# Looks until what the registry and the ledger say belongs to one moment.
LOOKS = 5
PUT_BACK = "put back: the ledger says who serves"


def disagreements(standing: Standing, aliases: dict[str, str]) -> list[str]:
    """A sentence for each alias that does not say what the ledger says."""
    wanted = expected(standing)
    return [
        f"alias {alias!r} is {version_or_nobody(aliases.get(alias))},"
        f" the ledger says {version_or_nobody(wanted.get(alias))}"
        for alias in ALIASES
        if aliases.get(alias) != wanted.get(alias)
    ]


@dataclass(frozen=True)
class Found:
    """Ledger and aliases at one moment. `moved`: aliases that somebody else has moved, from where to where;
    `placed`: the aliases are known to have been put where the ledger has them."""

    standing: Standing
    aliases: dict[str, str]
    moved: dict[str, tuple[str | None, str | None]]
    placed: bool


def look_at(store: Store, registry: Registry) -> Found:
    """Aliases first, then the ledger: what we have put somewhere has its row in the ledger by then."""
    aliases = registry.aliases()
    for _ in range(LOOKS):
        with store.begin() as work:
            standing, ledger, placements = work.standing(), work.ledger(), work.placements()
        moved = moved_by_somebody(aliases, ledger, placements)
        # Before somebody is blamed: was it we who have moved it on, between the one look and the other?
        again = registry.aliases() if moved else aliases
        if again == aliases:
            break
        aliases = again
    finished = [p for p in placements if p.finished is not None]
    placed = len(finished) == len(placements) == 1 and finished[0].epoch == standing.epoch
    return Found(standing, aliases, moved, placed)


def project_aliases(
    store: Store, registry: Registry, clock: Callable[[], datetime], *, why: str = PUT_BACK
) -> list[str]:
    """Moves aliases to where the ledger has them; returns what was out of place.

    One that somebody else has moved is written down, with `why` it is put back, and mailed once.
    """
    found = look_at(store, registry)
    off = disagreements(found.standing, found.aliases)
    if found.placed and not off:
        return off
    number = _begin(store, found, why, clock)
    with store.begin() as work:
        if work.standing().epoch != found.standing.epoch:
            # Whoever has changed it moves them too.
            work.drop_placement(number)
            work.commit()
            return off
    wanted = expected(found.standing)
    for alias in ALIASES:
        if found.aliases.get(alias) != wanted.get(alias):
            registry.set_alias(alias, wanted.get(alias))
    with store.begin() as work:
        work.finish_placement(number, clock())
        work.commit()
    return off


def _begin(store: Store, found: Found, why: str, clock: Callable[[], datetime]) -> int:
    """Before they move: whoever looks meanwhile, or finds them after our death, knows that it was we."""
    with store.begin() as work:
        number = work.begin_placement(found.standing.epoch, clock())
        for alias, (placed, version) in found.moved.items():
            move = AliasMove(alias, placed, version, found.standing.epoch, why, clock())
            work.add_alias_move(move)
            work.add_messages(_fact(move).messages(), clock())
        work.commit()
    return number


def _fact(move: AliasMove) -> AliasMoved:
    return AliasMoved(
        alias=move.alias,
        placed=move.placed,
        found=move.found,
        epoch=move.epoch,
        seen_at=move.seen_at,
        reasons=(str(move), move.reason),
    )
