"""What the mail of each fact says, in sentences for owners: what happened, how much it matters,
what the system did, what one can do.

Both parts of a mail, text and HTML, are laid out from these words, so they cannot contradict.
"""

from __future__ import annotations

from collections.abc import Callable

from cancellations.domain.events import (
    AliasMoved,
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    DataBroken,
    DigestPublished,
    DriftDetected,
    FlowFailed,
    FlowSilent,
    OutlookPublished,
    RetrainDue,
    RetrainFailed,
    RetrainOverdue,
    RetrainRejected,
    SignalAlarmed,
    SourceSilent,
    TrialDoubted,
    TrialEnded,
)
from cancellations.domain.lines import one_line
from cancellations.domain.promotion import Trial
from cancellations.domain.retraining import MonitorReport
from cancellations.errors import BadInput
from cancellations.mail.wording.champions import alias_moved, changed
from cancellations.mail.wording.requests import gave_up, overdue, registered, rejected
from cancellations.mail.wording.runs import flow_failed, flow_silent
from cancellations.mail.wording.sentences import Payload, Story, Words
from cancellations.mail.wording.summaries import digest, outlook
from cancellations.mail.wording.trials import approval, doubted, ended
from cancellations.mail.wording.watching import alarmed, data_broken, drift, due, silent

WORDING: dict[str, Callable[[Story], Words]] = {
    DriftDetected.topic: drift,
    RetrainDue.topic: due,
    SignalAlarmed.topic: alarmed,
    DataBroken.topic: data_broken,
    SourceSilent.topic: silent,
    ChallengerRegistered.topic: registered,
    RetrainRejected.topic: rejected,
    RetrainFailed.topic: gave_up,
    RetrainOverdue.topic: overdue,
    FlowFailed.topic: flow_failed,
    FlowSilent.topic: flow_silent,
    ChampionChanged.topic: changed,
    AliasMoved.topic: alias_moved,
    ApprovalNeeded.topic: approval,
    TrialDoubted.topic: doubted,
    TrialEnded.topic: ended,
    OutlookPublished.topic: outlook,
    DigestPublished.topic: digest,
}


def words(topic: str, payload: Payload, report: MonitorReport | None = None, trial: Trial | None = None) -> Words:
    """Words of the fact `topic`; `report` and `trial` are those that the fact names, where it names one.

    Raises `BadInput` for a topic without a mail or a payload that lacks a field.
    """
    if topic not in WORDING:
        raise BadInput(f"there is no mail for the topic {topic!r}; known topics: {', '.join(sorted(WORDING))}.")
    lines = {k: one_line(v) if isinstance(v, str) else v for k, v in payload.items()}
    try:
        return WORDING[topic](Story(lines, report, trial))
    except KeyError as error:
        raise BadInput(
            f"the message {topic!r} lacks the field {error}: it was written by another version of"
            " cancellations. Deliver it with that version."
        ) from error
