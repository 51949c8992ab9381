"""A fact has one id for ever, one topic, and a payload that any JSON reader takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancellations.domain.digest import Champion
from cancellations.domain.events import (
    FACTS,
    AliasMoved,
    ApprovalNeeded,
    ChallengerRegistered,
    ChampionChanged,
    Channel,
    DataBroken,
    DigestPublished,
    DriftDetected,
    Fact,
    FlowFailed,
    FlowSilent,
    OutcomesArrived,
    OutlookPublished,
    RetrainDue,
    RetrainFailed,
    RetrainOverdue,
    RetrainRejected,
    SignalAlarmed,
    SourceSilent,
    TrialDoubted,
    TrialEnded,
    identity,
    subject,
)

START, END = date(2016, 5, 2), date(2016, 5, 29)
NOW = datetime(2016, 5, 30, 6, 0, tzinfo=UTC)
REASONS = ("1,386 bookings that matured on 14 days", "challenger 2 is better")
EXAMPLES: tuple[Fact, ...] = (
    DriftDetected("request-7", "report-7", "1", START, END, REASONS),
    RetrainDue("request-7", "report-7", "1", START, END, REASONS),
    SignalAlarmed("report-7", "1", START, END, "in-flight cancellations", "35% predicted", "40% expected", REASONS),
    DataBroken(END, 120, REASONS),
    SourceSilent(END, 4, 1),
    ChallengerRegistered("request-7", "2", "1", END, REASONS),
    RetrainRejected("request-7", "1", END, REASONS),
    RetrainFailed("request-7", None, END, REASONS),
    RetrainOverdue("request-7", "1", END, NOW, 64, REASONS),
    FlowFailed("ingest", "run-7", "ingest 2016-05-29", "Failed", "no such file", NOW),
    FlowSilent("ingest", NOW, 2),
    ChampionChanged("2", "1", 5, END, "promoted", "better", "the trial", "trial-2-4", REASONS),
    AliasMoved("champion", "1", "2", 5, NOW, REASONS),
    ApprovalNeeded("trial-2-4", "1", "2", END, NOW, REASONS),
    TrialDoubted("trial-2-4", "trial", "arms", "1", "2", END, REASONS),
    TrialEnded("trial-2-4", "trial", "rejected", "1", "2", END, REASONS),
    OutcomesArrived("trial-2-4", END, 120, NOW),
    OutlookPublished(END, "2", 0.8, "€", "", ("ada@hotel.example",), 0, ({"days": 7},), {"rank": [1]}, {"a": ["H"]}),
    DigestPublished(START, END, "", Champion("1", START, START), report_id="report-7", silent=(END,), booked=7),
)
SUBJECTS = {
    DriftDetected: ("request", "request-7"),
    RetrainDue: ("request", "request-7"),
    SignalAlarmed: ("report", "report-7"),
    DataBroken: ("day", "2016-05-29"),
    SourceSilent: ("day", "2016-05-29"),
    ChallengerRegistered: ("request", "request-7"),
    RetrainRejected: ("request", "request-7"),
    RetrainFailed: ("request", "request-7"),
    RetrainOverdue: ("request", "request-7"),
    FlowFailed: ("flow", "ingest"),
    FlowSilent: ("flow", "ingest"),
    ChampionChanged: ("champion", "2"),
    AliasMoved: ("alias", "champion"),
    ApprovalNeeded: ("trial", "trial-2-4"),
    TrialDoubted: ("trial", "trial-2-4"),
    TrialEnded: ("trial", "trial-2-4"),
    OutcomesArrived: ("trial", "trial-2-4"),
    OutlookPublished: ("outlook", "2016-05-29"),
    DigestPublished: ("digest", "2016-05-29"),
}
BY_MAIL, BY_EVENT, BY_BOTH = {Channel.MAIL}, {Channel.EVENT}, {Channel.EVENT, Channel.MAIL}
WAYS = {
    DriftDetected: BY_BOTH,
    RetrainDue: BY_BOTH,
    SignalAlarmed: BY_MAIL,
    DataBroken: BY_MAIL,
    SourceSilent: BY_MAIL,
    ChallengerRegistered: BY_MAIL,
    RetrainRejected: BY_MAIL,
    RetrainFailed: BY_MAIL,
    RetrainOverdue: BY_MAIL,
    FlowFailed: BY_MAIL,
    FlowSilent: BY_MAIL,
    ChampionChanged: BY_BOTH,
    AliasMoved: BY_MAIL,
    ApprovalNeeded: BY_MAIL,
    TrialDoubted: BY_MAIL,
    TrialEnded: BY_MAIL,
    OutcomesArrived: BY_EVENT,
    OutlookPublished: BY_MAIL,
    DigestPublished: BY_MAIL,
}

each_fact = pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: type(fact).__name__)


def kinds(base: type[Fact] = Fact) -> Iterator[type[Fact]]:
    for kind in base.__subclasses__():
        if "topic" in vars(kind):
            yield kind
        yield from kinds(kind)


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, date):
        return value + timedelta(days=1)
    if isinstance(value, tuple):
        return (*value, "one more")
    if isinstance(value, dict):
        return {**value, "more": [1]}
    return value + 1 if isinstance(value, int) else f"{value}x"


def test_every_kind_of_fact_is_listed_and_tested_here() -> None:
    assert set(FACTS) == set(kinds()) == {type(fact) for fact in EXAMPLES}
    assert len(FACTS) == len(set(FACTS))


def test_no_two_kinds_share_a_topic() -> None:
    topics = {kind.topic for kind in FACTS}
    assert len(topics) == len(FACTS)
    assert all(topic.startswith("cancellations.") for topic in topics)


@each_fact
def test_a_fact_leaves_by_each_of_its_ways_once(fact: Fact) -> None:
    messages = fact.messages()
    assert {m.channel for m in messages} == WAYS[type(fact)]
    assert len(messages) == len(WAYS[type(fact)])
    assert {m.topic for m in messages} == {fact.topic}


@each_fact
def test_a_message_says_what_it_is_about(fact: Fact) -> None:
    assert {subject(message) for message in fact.messages()} == {SUBJECTS[type(fact)]}


@each_fact
def test_a_payload_holds_every_field_and_survives_strict_json(fact: Fact) -> None:
    for message in fact.messages():
        assert json.loads(json.dumps(message.payload, allow_nan=False)) == message.payload
        assert set(message.payload) == {field.name for field in fields(fact)}


@each_fact
def test_the_same_fact_told_again_has_the_same_ids_and_each_way_its_own(fact: Fact) -> None:
    ids = [message.id for message in fact.messages()]
    assert [message.id for message in replace(fact).messages()] == ids
    assert len(set(ids)) == len(ids)


@each_fact
def test_whatever_differs_makes_another_fact_unless_it_is_named_by_less(fact: Fact) -> None:
    seen = {message.id for message in fact.messages()}
    for field in fields(fact):
        changed = {m.id for m in replace(fact, **{field.name: other(getattr(fact, field.name))}).messages()}
        by_all = not fact.identified_by
        assert seen.isdisjoint(changed) is (by_all or field.name in fact.identified_by), field.name


def test_what_is_told_once_has_one_mail_whatever_is_computed_anew() -> None:
    named = {OutlookPublished, DigestPublished, SourceSilent, RetrainOverdue, TrialDoubted, AliasMoved}
    named |= {FlowFailed, FlowSilent}
    assert {fact for fact in FACTS if fact.identified_by} == named
    assert DigestPublished.identified_by == ("until", "environment")
    assert RetrainOverdue.identified_by == ("request_id",)
    assert SourceSilent.identified_by == ("since",)
    assert FlowFailed.identified_by == ("run_id",)
    assert FlowSilent.identified_by == ("flow", "since")
    assert AliasMoved.identified_by == ("alias", "found", "epoch")
    assert TrialDoubted.identified_by == ("trial_id", "doubt")
    assert OutlookPublished.identified_by == ("as_of", "environment")


def test_facts_of_two_kinds_are_two_even_with_the_same_content() -> None:
    drift = DriftDetected("request-7", "report-7", "1", START, END, REASONS)
    due = RetrainDue("request-7", "report-7", "1", START, END, REASONS)
    assert {m.id for m in drift.messages()}.isdisjoint(m.id for m in due.messages())


def test_dates_and_instants_leave_as_iso_text() -> None:
    (message,) = OutcomesArrived("trial-2-4", END, 120, NOW).messages()
    assert message.payload == {
        "trial_id": "trial-2-4",
        "until": "2016-05-29",
        "outcomes": 120,
        "loaded_at": "2016-05-30 06:00:00+00:00",
    }


def test_an_identity_is_the_same_in_any_process_and_for_ever() -> None:
    assert identity("report", "2", END) == "67fa734a-935b-5428-8ba7-00214250860f"


PARTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=3), max_size=3)


@given(PARTS, PARTS)
def test_identities_differ_when_parts_do(one: list[str], another: list[str]) -> None:
    # No part and one empty part read alike; whoever names something gives parts.
    assert (identity(*one) == identity(*another)) is ((one or [""]) == (another or [""]))
