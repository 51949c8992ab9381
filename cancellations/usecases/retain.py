"""What is kept, and for how long: scores, reports and mails that nothing needs any more are taken away.

Never touched: bookings, outcomes, features, quarantine, decisions with their reasons, requests, versions, trials, the
ledger. Training, the monitor, a trial and an explanation read those; what goes are copies and by-products.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from cancellations.domain.labels import Ending, LabelRule
from cancellations.domain.retention import RetentionPolicy
from cancellations.errors import BadInput
from cancellations.ports import Registry, Store, UnitOfWork

# Earlier than any booking; what ends is then bounded on one side alone.
LONG_AGO = date(1900, 1, 1)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Retained:
    """What was taken away, or would be; None where it is kept for ever."""

    scores: int | None
    reports: int | None
    outlooks: int | None
    mails: int | None
    mail_files: int | None


@dataclass(frozen=True)
class Folders:
    """Where a home keeps the morning outlooks, and mails that no server took."""

    outlooks: Path
    mails: Path


def retain(
    store: Store,
    registry: Registry,
    folders: Folders,
    policy: RetentionPolicy,
    rule: LabelRule,
    *,
    as_of: date,
    clock: Callable[[], datetime],
    chunk_rows: int,
    dry_run: bool,
) -> Retained:
    """Takes away what is older than the policy keeps; with `dry_run` it counts and changes nothing.

    Scores go in parts of `chunk_rows`, each a transaction, so a long clean-up keeps nobody waiting and may be killed.
    """
    scores = reports = outlooks = mails = mail_files = None
    if policy.score_days is not None:
        scores = _scores(store, rule.maturing(LONG_AGO, as_of - timedelta(policy.score_days)), chunk_rows, dry_run)
    if policy.report_days is not None:
        last = as_of - timedelta(policy.report_days)
        reports = _reports(store, registry, last, dry_run)
        outlooks = _remove(_outlooks(folders.outlooks, last), dry_run)
    if policy.mail_days is not None:
        before = clock() - timedelta(policy.mail_days)
        mails = _mails(store, before, dry_run)
        mail_files = _remove(_old_files(folders.mails, before), dry_run)
    return Retained(scores, reports, outlooks, mails, mail_files)


def in_play(work: UnitOfWork) -> frozenset[str]:
    """Versions whose scores may still be read: champion, challenger, a running trial's, the one to go back to."""
    standing, trial = work.standing(), work.open_trial()
    found = {standing.champion, standing.challenger}
    if trial is not None:
        found |= {trial.champion, trial.rival}
    champions = [row.champion for row in work.ledger() if row.champion not in (None, standing.champion)]
    return frozenset(version for version in (*found, *champions[-1:]) if version is not None)


def _scores(store: Store, ending: Ending, chunk_rows: int, dry_run: bool) -> int:
    gone = 0
    while True:
        with store.begin() as work:
            # Asked anew each time: a champion may have changed since.
            serving = in_play(work)
            if dry_run:
                return work.retired_scores(serving, ending)
            dropped = work.drop_scores(serving, ending, chunk_rows)
            work.commit()
        gone += dropped
        if dropped < chunk_rows:
            return gone


def _reports(store: Store, registry: Registry, last: date, dry_run: bool) -> int:
    with store.begin() as work:
        old = work.reports_until(last)
        trial = work.open_trial()
        running = None if trial is None else trial.request_id
        # A request that has not ended, and a trial that runs, lead people to their page.
        read = {r.report_id for r in work.requests() if not r.state.final or r.request_id == running}
    gone = 0
    for version, report_id in old:
        if report_id in read:
            continue
        try:
            gone += registry.drop_report(version, report_id, dry_run=dry_run)
        except BadInput:
            continue  # the version was deleted in MLflow, and its pages with it
    return gone


def _mails(store: Store, before: datetime, dry_run: bool) -> int:
    with store.begin() as work:
        trial = work.open_trial()
        if trial is not None:
            # Whether its owners were told of a doubt is read from the mails.
            before = min(before, datetime.combine(trial.opened_on, time(), UTC))
        gone = work.old_mails(before) if dry_run else work.drop_mails(before)
        work.commit()
    return gone


def _outlooks(folder: Path, last: date) -> Iterator[Path]:
    """Folders that `outlook` has made for days until the last one; whatever else lies there is none of ours."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _DAY.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and path.name <= last.isoformat():
            yield path


def _old_files(folder: Path, before: datetime) -> Iterator[Path]:
    for path in sorted(folder.glob("*.eml")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime < before.timestamp():
            yield path


def _remove(paths: Iterator[Path], dry_run: bool) -> int:
    count = 0
    for path in paths:
        count += 1
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return count
