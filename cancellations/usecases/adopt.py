"""An alias champion that somebody has moved in the registry: its version becomes champion, or it is put back."""

from __future__ import annotations

from cancellations.domain.aliases import CHAMPION, AliasPolicy, version_or_nobody
from cancellations.errors import BadInput, EpochMismatch, Refused
from cancellations.usecases.aliases import PUT_BACK, Found, look_at, project_aliases
from cancellations.usecases.promote import House, promote

SOMEBODY = "somebody in MLflow"


def settle_aliases(house: House, policy: AliasPolicy) -> list[str]:
    """Brings ledger and aliases together; returns a sentence for each that was out of place.

    By policy `adopt` the version that somebody has given the alias champion is promoted, as `promote` does it, on the
    record as somebody's. Where that is refused, and by policy `undo`, the ledger stands and the alias goes back.
    """
    why = PUT_BACK
    adopted: list[str] = []
    if policy is AliasPolicy.ADOPT:
        found = look_at(house.store, house.registry)
        if CHAMPION in found.moved:
            refused = _adopt(house, found)
            if refused is None:
                adopted = [f"alias {CHAMPION!r} is {version_or_nobody(found.aliases[CHAMPION])}: adopted, as champion"]
            else:
                why = f"put back, because it cannot be adopted: {refused}"
    return [*adopted, *project_aliases(house.store, house.registry, house.clock, why=why)]


def _adopt(house: House, found: Found) -> str | None:
    """Why the version that has the alias now cannot be champion; None when it is from now on."""
    before, version = found.moved[CHAMPION]
    if version is None:
        return "nobody was named"
    with house.store.begin() as work:
        held, ledger, span = work.promotions_held(), work.ledger(), work.booked_span()
    if held is not None:
        # Or whoever moves it again and again, and the probation that takes it back, would never come to an end.
        return f"promotions need a person's word here: {held}; `cancellations acknowledge` lets them go on"
    as_of = max([row.as_of for row in ledger] + ([] if span is None else [span[1]]))
    reason = (
        f"alias champion was moved from {version_or_nobody(before)} to version {version} in MLflow, seen at"
        f" {house.clock():%Y-%m-%d %H:%M} UTC"
    )
    try:
        promote(house, version, reason=reason, by=SOMEBODY, as_of=as_of)
    except EpochMismatch:
        return "somebody else has changed the champion meanwhile"
    except (Refused, BadInput) as error:
        return str(error)
    return None
