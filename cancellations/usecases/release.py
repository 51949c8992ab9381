"""A change of code or recipe becomes a version by the same way as a drift: request, gate, trial, ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from cancellations.domain.recipes import Recipe
from cancellations.domain.retraining import RetrainRequest
from cancellations.errors import Refused
from cancellations.ports import Registry, Store
from cancellations.usecases.promote import Takeover
from cancellations.usecases.training import TrainingPolicy, competing


@dataclass(frozen=True)
class Released:
    """What a release came to: why there was one, its request where it trained, its version, and who serves then."""

    changes: tuple[str, ...]
    request: RetrainRequest | None = None
    version: str | None = None
    takeover: Takeover | None = None


@dataclass(frozen=True)
class Means:
    """What a release stands on; `train` works on a request for a reason to its end, `promote` is a person's order."""

    store: Store
    registry: Registry
    policy: TrainingPolicy
    train: Callable[[str, date], RetrainRequest]
    promote: Callable[[str, str, date], Takeover]


def differences(version: str, registry: Registry, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """What of a version was made otherwise than one would be made now; empty when nothing was."""
    then, now = registry.environment(version), registry.environment()
    found = []
    if then.code != now.code:
        found.append(f"code {now.code} in place of {then.code or 'one that is not on record'}")
    told = registry.parameters(version)
    name = told.get("recipe", "")
    if name not in recipes:
        found.append(f"recipes {', '.join(recipes)} in place of {name or 'one that is not on record'}")
    elif json.loads(told.get("recipe_settings", "null")) != recipes[name].settings():
        found.append(f"the recipe {name} says something else")
    return tuple(found)


def release(means: Means, *, as_of: date, approval: str | None = None, anyway: bool = False) -> Released:
    """Trains where the champion was made by other code or recipes; `approval` promotes what passes the gate.

    Without a change nothing is done. A challenger of the present code and recipes is not trained again: approved, it
    takes over, as by `promote`. Raises `Refused` where the gate says no, or another challenger is on trial.
    """
    policy = means.policy
    with means.store.begin() as work:
        standing = work.standing()
        champion = None if standing.champion is None else work.version(standing.champion)
    changes: tuple[str, ...] = ("there is no champion yet",)
    if standing.champion is not None:
        wanted = {name: policy.cookbook[name] for name in policy.recipes}
        changes = differences(standing.champion, means.registry, wanted)
        if anyway:
            changes = changes or ("asked for anyway",)
    if not changes:
        return Released((), version=standing.champion)
    version, request = standing.challenger, None
    if version is not None and (others := differences(version, means.registry, competing(policy, champion))):
        raise Refused(
            f"challenger {version} is on trial, and was made otherwise ({'; '.join(others)}); let its trial end, or end"
            " it: cancellations withdraw"
        )
    if version is None:
        request = means.train(f"release: {'; '.join(changes)}", as_of)
        version = request.version
        if version is None:
            raise Refused(f"request {request.request_id} ended as {request.state}: {'; '.join(request.detail)}")
    if approval is None or standing.champion is None:  # the first champion serves at once
        return Released(changes, request, version)
    return Released(changes, request, version, means.promote(version, approval, as_of))
