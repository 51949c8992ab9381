"""Works on one retrain request."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State

from cancellations.domain.promotion import Kind, Trial
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import Refused
from cancellations.usecases.score import Scored
from flows.application import application, link, named, publish, refused, tell
from flows.deliver import relay
from flows.parameters import Said


@task
def ask(as_of: date, reason: str) -> str:
    return application().request_training(as_of, reason).request_id


@task
def train(request_id: str) -> RetrainRequest:
    return application().retrain(request_id, say=get_run_logger().info)


@task
def score_open(request: RetrainRequest) -> Scored | None:
    return application().score_challenger(request)


@flow(name="retrain", flow_run_name=named("retrain"))
def retrain(
    request_id: Said | None = None, as_of: date | None = None, reason: Said = "asked for by a person"
) -> State | None:
    """Trains on matured labels, backtests, passes the gate, registers one version per request.

    A version that stands beside a champion is on trial from then on: it scores all open bookings at once.

    Args:
        request_id: A request in the store, as the drift automation sends it. Empty: a new one is written.
        as_of: The day on which a new request looks at the world. Empty: today.
        reason: Why a new request is made, for the record.
    """
    try:
        request = train(request_id or ask(as_of or application().settings.today, reason))
    except Refused as error:
        return refused(error)
    trial = _trial_of(request)
    lines = [f"Request `{request.request_id}` ({request.reason}): **{request.state}**", ""]
    lines += [f"- {reason}" for reason in request.detail]
    if trial is not None:
        lines.append(
            f"- trial opened: version {trial.rival} against champion {trial.champion}, on bookings that mature after"
            f" {trial.cohort_after}, until {trial.last_day}; mode {trial.mode}, {trial.serve_share:.0%} of bookings"
            f" are served its score"
        )
    publish("retrain", "\n".join(lines), "How the request ended, and why")
    if request.version is not None:
        link("version", application().registry.version_address(request.version), f"version {request.version}")
    tell(relay())
    if trial is not None:
        scored = score_open(request)
        if scored is not None:
            log = get_run_logger()
            log.info("on trial: %d open bookings scored, %d served", scored.rows.get(trial.rival, 0), scored.served)
    return None


def _trial_of(request: RetrainRequest) -> Trial | None:
    """The trial that the request's version is on."""
    with application().store.begin() as work:
        trial = work.open_trial()
    on_trial = trial is not None and trial.kind is Kind.TRIAL and trial.rival == request.version
    return trial if on_trial and request.state is RequestState.CANDIDATE else None
