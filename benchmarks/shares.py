"""Where the time of a batch goes: its calls of the store and the model, timed one by one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from cancellations.ports import Registry, Store, UnitOfWork

# Call of the unit of work -> what it is told as; the rest is features, built and handed about in memory.
PARTS = {
    **dict.fromkeys(("unscored", "unscored_features"), "read bookings"),
    **dict.fromkeys(("features", "unscored_days", "standing", "open_trial", "version"), "look-ups"),
    **dict.fromkeys(("tallies", "books", "extra_columns"), "read the past"),
    "predict": "predict",
    "add_features": "write features",
    "add_predictions": "write predictions",
    "commit": "commit",
    "serve": "serve",
}
REST = "features, and the rest"


class Shares:
    """Seconds by part, of whatever passes through `store` and `registry`."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.store = cast(Store, _TimedStore(store, self))
        self.registry = cast(Registry, _TimedRegistry(registry, self))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began

    def of(self, total: float) -> dict[str, float]:
        """Shares of a total, the largest first."""
        parts = {**self.seconds, REST: total - sum(self.seconds.values())}
        return {part: seconds / total for part, seconds in sorted(parts.items(), key=lambda one: -one[1])}


class _Timed:
    def __init__(self, inner: object, shares: Shares) -> None:
        self._inner, self._shares = inner, shares

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in PARTS:
            return found

        def call(*given: Any, **named: Any) -> Any:
            with self._shares.timed(PARTS[name]):
                return found(*given, **named)

        return call


class _TimedStore(_Timed):
    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        with cast(Store, self._inner).begin() as work:
            yield cast(UnitOfWork, _Timed(work, self._shares))


class _TimedRegistry(_Timed):
    def load(self, version: str) -> Any:
        return _Timed(cast(Registry, self._inner).load(version), self._shares)
