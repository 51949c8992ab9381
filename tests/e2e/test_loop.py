"""The loop on the real stack: a drift becomes a version by itself, once, whatever is lost on the way."""

from __future__ import annotations

import email
import email.policy
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import mlflow
import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from stage import DRIFTED, FIRST_BOOKING, LATER, Story

from cancellations import settings
from cancellations.domain.events import Channel, DriftDetected, Message, RetrainFailed
from cancellations.domain.retraining import Action, RequestState, RetrainRequest
from cancellations.ports import OutboxEntry


def maker(run: FlowRun) -> str | None:
    return run.created_by.type if run.created_by else None


def request(story: Story, request_id: str) -> RetrainRequest:
    with story.app.store.begin() as work:
        found = work.request(request_id)
    assert found is not None
    return found


def write_request(story: Story, request_id: str, as_of: date, since: datetime | None = None) -> Message:
    """A request with its event and mail, as the monitor writes them; returns the event."""
    now, report = since or datetime.now(UTC), story.acted.report
    fact = DriftDetected(
        request_id, story.acted.report_id, report.champion, report.window.start, report.window.end, ("by this test",)
    )
    written = RetrainRequest(
        request_id, as_of, "drift confirmed", report_id=story.acted.report_id, champion=report.champion
    )
    with story.app.store.begin() as work:
        assert work.add_request(written, now)
        work.add_messages(fact.messages(), now)
        work.commit()
    return next(message for message in fact.messages() if message.channel is Channel.EVENT)


def waiting_event(story: Story, request_id: str) -> OutboxEntry | None:
    with story.app.store.begin() as work:
        entries = work.pending_messages()
    return next(
        (e for e in entries if e.message.channel is Channel.EVENT and e.message.payload["request_id"] == request_id),
        None,
    )


def versions(story: Story, request_id: str) -> list[str]:
    """Versions in MLflow that were made for a request."""
    client = mlflow.MlflowClient(story.app.settings.tracking_uri)
    found = client.search_model_versions(f"name = '{settings.MODEL}' and tags.request_id = '{request_id}'")
    return [str(version.version) for version in found]


def mails(story: Story, topic: str, request_id: str) -> list[EmailMessage]:
    """Mails of the outbox folder about one fact of one request."""
    folder = story.app.settings.home / "outbox"
    read = [email.message_from_bytes(p.read_bytes(), policy=email.policy.default) for p in sorted(folder.glob("*.eml"))]
    return [m for m in read if m["X-Cancellations-Topic"] == topic and request_id in text(m)]


def text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def end_trial(story: Story) -> None:
    """While a challenger is on trial every request waits."""
    with story.app.store.begin() as work:
        running = work.open_trial()
    if running is not None:
        story.app.withdraw(reason="by this test", by="this test", as_of=LATER)


def firings(story: Story, event_id: str) -> int:
    """How often an automation acted on an event."""
    wanted = {
        "event": {"name": ["prefect.automation.action.triggered"]},
        "related": {"id": [f"prefect.event.{event_id}"]},
    }
    answer = story.client.request("POST", "/events/filter", json={"filter": wanted})
    return len(answer.raise_for_status().json()["events"])


def test_drift_is_found_where_it_is_and_not_in_the_window_before(story: Story) -> None:
    quiet, drifted = story.looks
    assert (quiet.decision.action, quiet.request_id) == (Action.NONE, None)
    assert drifted.decision.action is Action.RETRAIN_DRIFT
    assert drifted.report.window.end == DRIFTED
    assert "price" in {c.column for c in drifted.report.columns if c.drifted}


def test_the_automation_and_nobody_else_starts_one_retrain_for_the_decision(story: Story) -> None:
    (run,) = story.retrains
    assert maker(run) == "AUTOMATION"
    assert run.parameters == {"request_id": story.request_id}
    assert run.state_name == "Completed"
    event = story.server.event(DriftDetected.topic, story.request_id)
    assert event is not None
    assert firings(story, event) == 1


def test_the_request_ends_with_a_version_that_leads_back_to_it_and_stands_as_challenger(story: Story) -> None:
    done = request(story, story.request_id)
    assert done.state is RequestState.CANDIDATE
    assert done.attempts == 1
    assert done.version is not None
    assert versions(story, story.request_id) == [done.version]
    tags = story.app.registry.tags(done.version)
    assert tags["request_id"] == story.request_id
    assert tags["report_id"] == story.acted.report_id
    assert tags["replaces"] == story.acted.report.champion
    assert tags["as_of"] == DRIFTED.isoformat()

    assert story.aliases == {"champion": story.acted.report.champion, "challenger": done.version}
    assert story.status.standing.challenger == done.version
    assert story.status.trial is not None
    assert (story.status.trial.rival, story.status.trial.request_id) == (done.version, story.request_id)
    assert story.status.disagreements == ()

    reference = story.app.registry.reference(done.version)
    assert len(reference) == story.app.settings.retrain.reference_rows
    assert sum(story.app.registry.importance(done.version).values()) == pytest.approx(1)


def test_owners_get_one_mail_about_the_drift_with_its_picture_and_nothing_stays_in_the_outbox(story: Story) -> None:
    (mail,) = mails(story, DriftDetected.topic, story.request_id)
    pictures = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert [picture.get_content()[:8] for picture in pictures] == [b"\x89PNG\r\n\x1a\n"]
    assert "price" in text(mail)
    assert mail.get_body(("html",)) is not None
    assert (story.status.pending, story.status.dead) == ((), ())


def test_the_page_of_the_window_that_led_to_the_decision_is_kept_and_prefect_shows_its_tables(story: Story) -> None:
    champion = story.status.champion
    assert champion is not None
    client = mlflow.MlflowClient(story.app.settings.tracking_uri)
    kept = [file.path for file in client.list_artifacts(champion.run_id, "reports")]
    assert kept == [f"reports/{story.acted.report_id}"]
    pages = {Path(page.path).name: page.file_size or 0 for page in client.list_artifacts(champion.run_id, kept[0])}
    assert set(pages) == {"evidently.html", "report.html"}
    assert pages["evidently.html"] > 1_000_000

    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[story.monitor.id]))
    shown = {artifact.key: str(artifact.data) for artifact in story.client.read_artifacts(artifact_filter=of_run)}
    assert {"drift", "drift-columns", "drift-picture", "champion", "evidently-report", "report"} <= set(shown)
    assert Action.RETRAIN_DRIFT.value in shown["drift"]
    assert "| price |" in shown["drift-columns"]


def test_an_event_that_rings_again_starts_no_second_run(story: Story) -> None:
    end_trial(story)
    report = story.acted.report
    first = DriftDetected(
        story.request_id,
        story.acted.report_id,
        report.champion,
        report.window.start,
        report.window.end,
        story.acted.decision.reasons,
    ).messages()[0]
    assert first.id == story.server.event(DriftDetected.topic, story.request_id)
    doorbell = story.app.doorbell
    assert doorbell is not None

    doorbell.ring(first)
    told_anew = replace(first, id=str(uuid.uuid4()))
    doorbell.ring(told_anew)
    # Behind them another request; too little had matured by its day, so it ends soon. Once its run
    # has been made and has ended, those before it have been dealt with.
    doorbell.ring(write_request(story, "marker", FIRST_BOOKING))
    marker = story.server.finish(story.server.await_run("retrain", request_id="marker"))

    assert maker(marker) == "AUTOMATION"
    assert request(story, "marker").state is RequestState.REJECTED
    assert [run.id for run in story.server.having("retrain", request_id=story.request_id)] == [story.retrains[0].id]
    assert (firings(story, first.id), firings(story, told_anew.id)) == (1, 0)


def test_a_run_for_a_request_that_has_ended_trains_nothing(story: Story) -> None:
    before = request(story, story.request_id)
    with story.app.store.begin() as work:
        standing = work.standing()
    story.server.run("retrain", request_id=story.request_id)
    assert request(story, story.request_id) == before
    assert versions(story, story.request_id) == [before.version]
    with story.app.store.begin() as work:
        assert work.standing() == standing


@dataclass(frozen=True)
class Outage:
    """What was written while the Prefect server was down: two requests that could not ring.

    `refused`: their events, as the server's return found them in the outbox. Since then the event of
    `lost`, which had waited for an hour, has gone for good, as if the server had died with it after
    it had taken it, and `reconcile` has looked; then the event of `late` has rung.
    """

    late: str
    lost: str
    refused: tuple[OutboxEntry, OutboxEntry]


@pytest.fixture(scope="module")
def outage(story: Story) -> Outage:
    app = story.app
    end_trial(story)
    story.stack.stop_server()
    try:
        write_request(story, "late", LATER)
        lost = write_request(story, "lost", LATER, since=datetime.now(UTC) - timedelta(hours=1))
        app.deliver()
    finally:
        story.stack.start_server()
    refused = waiting_event(story, "late"), waiting_event(story, "lost")
    assert refused[0] is not None and refused[1] is not None

    with app.store.begin() as work:
        work.mark_sent(lost.id, datetime.now(UTC))
        work.commit()
    # More patience than the fresh request has waited, less than the lost one.
    story.server.run("reconcile", patience_seconds=1800)
    story.server.finish(story.server.await_run("retrain", request_id="lost"))
    end_trial(story)

    def rung() -> bool:
        app.deliver()
        return waiting_event(story, "late") is None

    story.until(rung, "the event leaves the outbox at its next attempt")
    story.server.finish(story.server.await_run("retrain", request_id="late"))
    return Outage("late", "lost", (refused[0], refused[1]))


def test_events_that_find_no_server_stay_in_the_outbox_with_their_attempt_and_mails_leave_without_them(
    story: Story, outage: Outage
) -> None:
    for entry in outage.refused:
        assert entry.attempts == 1
        assert "did not take the event" in str(entry.last_error)
    assert len(mails(story, DriftDetected.topic, outage.late)) == 1


def test_an_event_that_leaves_after_an_outage_ends_in_one_retrain(story: Story, outage: Outage) -> None:
    (run,) = story.server.having("retrain", request_id=outage.late)
    assert maker(run) == "AUTOMATION"
    done = request(story, outage.late)
    assert done.state is RequestState.CANDIDATE
    assert versions(story, outage.late) == [done.version]


def test_an_event_lost_in_an_outage_ends_in_one_retrain_by_reconcile(story: Story, outage: Outage) -> None:
    assert story.server.event(DriftDetected.topic, outage.lost) is None
    (run,) = story.server.having("retrain", request_id=outage.lost)
    assert maker(run) != "AUTOMATION"
    done = request(story, outage.lost)
    assert done.state is RequestState.CANDIDATE
    assert versions(story, outage.lost) == [done.version]
    assert story.app.reconcile(patience=timedelta(0)).started == ()


def test_a_retrain_that_fails_is_tried_again_by_itself_and_ends_as_failed_with_a_mail(story: Story) -> None:
    end_trial(story)
    artifacts = story.app.settings.home / "artifacts"
    away = artifacts.rename(artifacts.with_name("unmounted"))
    try:
        doorbell = story.app.doorbell
        assert doorbell is not None
        doorbell.ring(write_request(story, "doomed", DRIFTED))
        story.until(lambda: request(story, "doomed").state.final, "the request ends")
        (mail,) = story.until(lambda: mails(story, RetrainFailed.topic, "doomed"), "its mail is in the outbox folder")
    finally:
        away.rename(artifacts)

    done = request(story, "doomed")
    assert done.state is RequestState.FAILED
    assert done.attempts == story.app.settings.retrain.max_attempts == len(done.detail)
    assert versions(story, "doomed") == []
    runs = story.server.having("retrain", request_id="doomed")
    assert sorted(str(maker(run) == "AUTOMATION") for run in runs) == ["False", "True"]
    assert {run.state_name for run in runs} == {"Failed"}
    assert "attempt 2" in text(mail)
