"""The registry's aliases as a projection of our ledger, and whether the two agree."""

from __future__ import annotations

from cancellations.domain.promotion import Standing
from cancellations.ports import Registry, Store

ALIASES = ("champion", "challenger")


def expected(standing: Standing) -> dict[str, str]:
    """Aliases as the ledger wants them; a place that nobody holds has no alias."""
    wanted = {"champion": standing.champion, "challenger": standing.challenger}
    return {alias: version for alias, version in wanted.items() if version is not None}


def disagreements(standing: Standing, aliases: dict[str, str]) -> list[str]:
    """A sentence for each alias that does not say what the ledger says."""
    wanted = expected(standing)
    return [
        f"alias {alias!r} is {_told(aliases.get(alias))}, the ledger says {_told(wanted.get(alias))}"
        for alias in ALIASES
        if aliases.get(alias) != wanted.get(alias)
    ]


def _told(version: str | None) -> str:
    return "nobody" if version is None else f"version {version}"


def project_aliases(store: Store, registry: Registry) -> list[str]:
    """Moves aliases to where the ledger has them; returns what was out of place."""
    with store.begin() as work:
        standing = work.standing()
    aliases = registry.aliases()
    moved = disagreements(standing, aliases)
    wanted = expected(standing)
    for alias in ALIASES:
        if aliases.get(alias) != wanted.get(alias):
            registry.set_alias(alias, wanted.get(alias))
    return moved
