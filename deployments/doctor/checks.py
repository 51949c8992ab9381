"""Checks side by side, each with a time limit, none of which can hide another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cancellations.domain.health import Finding, Verdict
from cancellations.errors import CancellationsError


@dataclass(frozen=True)
class Check:
    """Something that is looked at: `where` it is, and `look`, which raises what it cannot go on with.

    `remedy` is what to do then, where the error does not say it all.
    """

    name: str
    where: str
    look: Callable[[], Iterable[Finding]]
    remedy: str = ""

    def wrong(self, what: str, remedy: str = "") -> Finding:
        return Finding(self.name, self.where, Verdict.WRONG, what, remedy or self.remedy)


def examine(checks: Sequence[Check], limit: float) -> list[Finding]:
    """What all checks find, in their order; none is waited for longer than `limit` seconds.

    They run at once, in threads that nobody waits for at the end: one that hangs is told, and left behind.
    """
    found: dict[int, list[Finding]] = {}

    def look(number: int, check: Check) -> None:
        try:
            found[number] = list(check.look())
        except CancellationsError as error:
            found[number] = [check.wrong(str(error))]
        except Exception as error:  # noqa: BLE001 (a mistake in one check must not hide the others)
            found[number] = [check.wrong(f"the check itself failed: {error!r}", "please report it, with this line")]

    threads = [
        threading.Thread(target=look, args=(number, check), name=check.name, daemon=True)
        for number, check in enumerate(checks)
    ]
    deadline = time.monotonic() + limit
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [
        finding
        for number, check in enumerate(checks)
        for finding in found.get(number) or [check.wrong(f"no answer within {limit:g} s", _SLOW)]
    ]


_SLOW = "see whether it hangs or is busy; CANCELLATIONS_DOCTOR__TIMEOUT_SECONDS waits longer"
