"""Messages leave the outbox: at least once, each with its one id, events before mails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from cancellations.domain.events import Channel, DigestPublished, Message, OutlookPublished
from cancellations.domain.promotion import Trial, TrialState
from cancellations.errors import CancellationsError
from cancellations.ports import (
    Doorbell,
    Letter,
    Mailer,
    OutboxEntry,
    Pictures,
    Registry,
    Store,
    StoredDecision,
    UnitOfWork,
)
from cancellations.usecases.outlook import nights_of

LEASE = "deliver"
LEASE_TTL = timedelta(minutes=5)
BATCH = 100
# 15 s, 30 s, 1 min … doubling up to four hours between attempts.
FIRST_RETRY = timedelta(seconds=15)
LONGEST_RETRY = timedelta(hours=4)


@dataclass(frozen=True)
class Delivered:
    """How many messages left, and why others did not."""

    sent: int
    failed: tuple[str, ...] = ()
    busy: bool = False  # another relay was at work; nothing was touched


def retry_delay(attempts: int) -> timedelta:
    """Pause before the next attempt after `attempts` failed ones."""
    return min(FIRST_RETRY * 2 ** (attempts - 1), LONGEST_RETRY)


def deliver(
    store: Store,
    *,
    doorbell: Doorbell | None,
    mailer: Mailer | None,
    pictures: Pictures,
    registry: Registry,
    max_attempts: int,
    owner: str,
    clock: Callable[[], datetime],
    weekly: Sequence[str] = (),
    run_address: Callable[[str], str | None] = lambda run: None,
) -> Delivered:
    """Sends what is due. Without a doorbell events stay where they are, without a mailer mails do.

    A message is marked sent after it left; a kill in between sends it again, with the same id. One
    that fails, for whatever reason, is tried again later and holds up no other. Mails of the topics `weekly`
    stay for the digest. `run_address` gives the page on which a person answers the run that asks for approval,
    where there is such a page.
    """
    senders: dict[Channel, Callable[[Message], None]] = {}
    if doorbell is not None:
        senders[Channel.EVENT] = doorbell.ring
    if mailer is not None:
        senders[Channel.MAIL] = lambda message: mailer.send(_letter(message, store, pictures, registry, run_address))
    with store.begin() as work:
        token = work.acquire_lease(LEASE, owner, clock(), LEASE_TTL)
        work.commit()
    if token is None:
        return Delivered(0, busy=True)
    sent, failed = 0, []
    try:
        for channel, send in senders.items():
            with store.begin() as work:
                due = work.due_messages(channel, clock(), BATCH, weekly if channel is Channel.MAIL else ())
            for entry in due:
                try:
                    send(entry.message)
                except Exception as error:  # noqa: BLE001  (a message that cannot be written must not stop the rest)
                    problem = str(error) if isinstance(error, CancellationsError) else repr(error)
                    failed.append(f"{entry.message.topic} by {channel}: {problem}")
                    _postpone(entry, problem, store, max_attempts, clock())
                    continue
                with store.begin() as work:
                    work.check_lease(LEASE, token, clock(), LEASE_TTL)
                    work.mark_sent(entry.message.id, clock())
                    work.commit()
                sent += 1
    finally:
        with store.begin() as work:
            work.release_lease(LEASE, token)
            work.commit()
    return Delivered(sent, tuple(failed))


def _postpone(entry: OutboxEntry, error: str, store: Store, max_attempts: int, now: datetime) -> None:
    attempts = entry.attempts + 1
    retry_at = None if attempts >= max_attempts else now + retry_delay(attempts)
    with store.begin() as work:
        work.mark_failed(entry.message.id, error, retry_at)
        work.commit()


def _letter(
    message: Message,
    store: Store,
    pictures: Pictures,
    registry: Registry,
    run_address: Callable[[str], str | None],
) -> Letter:
    """The mail's story: the decision or the trial behind it, its picture, and where to look further."""
    report_id, trial_id = (message.payload.get(key) for key in ("report_id", "trial_id"))
    decision: StoredDecision | None = None
    earlier: list[StoredDecision] = []
    trial: Trial | None = None
    with store.begin() as work:
        if report_id is not None:
            decision = work.decision(report_id)
        if decision is not None:
            end = decision.report.window.end
            all_of_them = work.decisions(decision.report.champion)
            earlier = [d for d in reversed(all_of_them) if d.report.window.end < end]
        if trial_id is not None:
            trial = work.trial(trial_id)
        told = _told(message, work)
    picture: bytes | None = None
    if decision is not None:
        picture = pictures.drift(decision, earlier)
    elif trial is not None and trial.evidence:
        picture = pictures.trial(trial)
    elif message.topic == OutlookPublished.topic:
        nights, currency = nights_of(message.payload["nights"]), str(message.payload["currency"])
        picture = pictures.outlook(date.fromisoformat(message.payload["as_of"]), nights, currency)
    links: dict[str, str | None] = {}
    if trial is not None and trial.state is TrialState.AWAITING and trial.asked_by is not None:
        links["Answer in Prefect"] = run_address(trial.asked_by)
    digest = message.topic == DigestPublished.topic
    links |= _digest_links(message.payload, decision, registry) if digest else _links(message.payload, registry)
    page: bytes | None = None
    if decision is not None and decision.request_id is not None and not digest:
        page = registry.report_page(decision.report.champion, decision.report_id)
    known = {k: v for k, v in links.items() if v is not None}
    return Letter(message, decision, trial, picture, known, page, told)


def _told(message: Message, work: UnitOfWork) -> tuple[Letter, ...]:
    """Of the mails that a digest tells: what is needed for their subjects."""
    if message.topic != DigestPublished.topic:
        return ()
    ids = [*message.payload["weekly"], *(mailed["id"] for mailed in message.payload["at_once"])]
    found = [entry.message for entry in work.messages(ids)]
    trials = {name: work.trial(name) for name in {m.payload.get("trial_id") for m in found} if name is not None}
    return tuple(Letter(m, trial=trials.get(m.payload.get("trial_id"))) for m in found)


def _digest_links(
    payload: Mapping[str, Any], decision: StoredDecision | None, registry: Registry
) -> dict[str, str | None]:
    links: dict[str, str | None] = {}
    if payload["champion"] is not None:
        version = payload["champion"]["version"]
        links[f"Champion {version} in MLflow"] = registry.version_address(version)
    # Only a look that asked for a retrain has its page kept.
    if decision is not None and decision.request_id is not None:
        links["Evidently's report"] = registry.report_address(decision.report.champion, decision.report_id)
    return links


def _links(payload: Mapping[str, object], registry: Registry) -> dict[str, str | None]:
    champion, version, previous, report_id = (payload.get(k) for k in ("champion", "version", "previous", "report_id"))
    links: dict[str, str | None] = {}
    if version is not None:
        links[f"Version {version} in MLflow"] = registry.version_address(str(version))
    if previous is not None:
        links[f"Version {previous} in MLflow"] = registry.version_address(str(previous))
    if champion is not None:
        links[f"Champion {champion} in MLflow"] = registry.version_address(str(champion))
        if report_id is not None:
            links["Evidently's report"] = registry.report_address(str(champion), str(report_id))
    return links
