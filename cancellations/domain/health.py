"""What is found when an installation is looked over, and the rules that tell right from wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

GIB = 1024**3


class Verdict(StrEnum):
    """What a finding means for whoever looks after the installation."""

    RIGHT = "right"  # as it should be
    NOTICE = "notice"  # worth knowing; nothing has to be mended
    WRONG = "wrong"  # has to be mended
    UNKNOWN = "unknown"  # could not be looked at, because something else is wrong


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: by which check, where, what was found, and the command that mends it."""

    check: str
    where: str
    verdict: Verdict
    what: str
    remedy: str = ""

    @property
    def to_mend(self) -> bool:
        return self.verdict in (Verdict.WRONG, Verdict.UNKNOWN)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing has to be mended."""
    return not any(finding.to_mend for finding in findings)


def of_space(where: str, free: int, total: int, least: float) -> Finding:
    """Free bytes of a file system against the least that there should be."""
    told = f"{free / GIB:,.1f} of {total / GIB:,.1f} GiB are free"
    if free >= least:
        return Finding("disk", where, Verdict.RIGHT, told)
    return Finding(
        "disk",
        where,
        Verdict.WRONG,
        f"{told}, at least {least / GIB:g} should be",
        f"find what takes the room: du -xh --max-depth=2 {where} | sort -h | tail; or give it a larger disk",
    )


def of_clock(
    where: str, theirs: datetime, sent: datetime, received: datetime, tolerance: timedelta, step: timedelta
) -> Finding:
    """Another clock against ours, which was read before it was asked and after it had answered.

    `step`: the unit that it tells its time in. What lies within that, and within the time that the answer took, is
    no difference.
    """
    apart = theirs + step / 2 - (sent + (received - sent) / 2)
    unsure = (received - sent) / 2 + step / 2
    ahead = "ahead of" if apart > timedelta(0) else "behind"
    if abs(apart) - unsure <= tolerance:
        return Finding("clock", where, Verdict.RIGHT, f"within {tolerance.total_seconds():g} s of this machine's")
    return Finding(
        "clock",
        where,
        Verdict.WRONG,
        f"{abs(apart).total_seconds():,.0f} s {ahead} this machine's: leases, schedules and events go by the clock",
        "set both by NTP; on each machine: timedatectl set-ntp true",
    )


def of_versions(check: str, where: str, name: str, ours: str, theirs: str, remedy: str) -> Finding:
    """A server's version against the client's: the same release (major.minor), or the server a later one of the same
    major."""
    told = f"{name} {theirs}, client {ours}"
    mine, other = _release(ours), _release(theirs)
    if mine == other:
        return Finding(check, where, Verdict.RIGHT, told)
    if mine[0] == other[0] and mine < other:
        return Finding(check, where, Verdict.NOTICE, f"{told}: the server is of a later release")
    return Finding(check, where, Verdict.WRONG, f"{told}: a server must not be older than its clients", remedy)


def _release(version: str) -> tuple[int, int]:
    """Major and minor; (0, 0) for what is no version."""
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0
