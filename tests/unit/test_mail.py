"""Mails: each tells its fact completely, and nothing in the data can break out of its place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from cancellations.domain.events import (
    FACTS,
    ChallengerRegistered,
    ChampionChanged,
    Channel,
    DriftDetected,
    Fact,
    RetrainDue,
    RetrainFailed,
    RetrainRejected,
)
from cancellations.domain.retraining import (
    Action,
    ColumnDrift,
    Decision,
    MonitorReport,
    Signal,
    Verdict,
    Window,
)
from cancellations.errors import BadInput
from cancellations.mail.message import write
from cancellations.ports import Letter, StoredDecision
from cancellations.settings import Mail

START, END = date(2016, 5, 2), date(2016, 5, 29)
NOW = datetime(2016, 5, 30, 6, 0, tzinfo=UTC)
MAIL = Mail(sender="Model <model@hotel.example>", owners=["ada@hotel.example", "Bo <bo@hotel.example>"])
PICTURE = b"\x89PNG\r\n\x1a\n and the rest"
REASONS = ("evidence 0.71 of 0.5 needed", "2 of the last 3 windows drifted")

FACT_EXAMPLES: tuple[Fact, ...] = (
    DriftDetected("request-7", "report-7", "1", START, END, REASONS),
    RetrainDue("request-7", "report-7", "1", START, END, REASONS),
    ChallengerRegistered("request-7", "2", "1", END, REASONS),
    RetrainRejected("request-7", "1", END, REASONS),
    RetrainFailed("request-7", None, END, REASONS),
    ChampionChanged("2", "1", 3, END, "passed its trial"),
)


def column(name: str, weight: float = 0.1, drifted: bool = True, **changes: object) -> ColumnDrift:
    known = ColumnDrift(name, "wasserstein", 0.312, 0.1, drifted, weight, f"{name} then", f"{name} now")
    return replace(known, **changes)  # type: ignore[arg-type]


def decision(*columns: ColumnDrift, loss: Verdict = Verdict.ALARM) -> StoredDecision:
    signals = (
        Signal("column drift", 0.71, 0.5, Verdict.ALARM, 1.0, 4_210),
        Signal("domain classifier", 0.75, 0.8, Verdict.WATCH, 1.0, 4_210),
        Signal("matured excess loss", 0.041, 0.02, loss, 1.5, 900, why="too few" if loss.startswith("not") else ""),
    )
    report = MonitorReport("1", Window(START, END), 4_210, 5_000, signals, columns)
    return StoredDecision("report-7", report, Decision(Action.RETRAIN_DRIFT, REASONS), "request-7", NOW)


def letter(fact: Fact = FACT_EXAMPLES[0], stored: StoredDecision | None = None, **more: object) -> Letter:
    message = next(m for m in fact.messages() if m.channel is Channel.MAIL)
    return Letter(message, stored, **more)  # type: ignore[arg-type]


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    content = body.get_content()
    assert isinstance(content, str)
    return content


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_fact_has_an_example_here() -> None:
    assert {type(f) for f in FACT_EXAMPLES} == set(FACTS)


@pytest.mark.parametrize("fact", FACT_EXAMPLES, ids=lambda f: type(f).__name__)
def test_text_part_tells_the_fact_and_how_to_stop_by_itself(fact: Fact) -> None:
    stored = decision(column("lead_days")) if hasattr(fact, "report_id") else None
    mail = write(letter(fact, stored, links={"Runs": "http://127.0.0.1:4200/runs"}), MAIL, "", NOW)
    text = part(mail, "plain")
    assert text.splitlines()[0].strip() and "WHAT YOU CAN DO" not in text.splitlines()[0]
    for needed in (
        "How much it matters",
        "What the system did",
        "cancellations status",
        'cancellations pause --reason "…"',
        "cancellations resume",
        "http://127.0.0.1:4200/runs",
    ):
        assert needed in text
    reasons = getattr(fact, "reasons", None) or (fact.reason,)  # type: ignore[attr-defined]
    assert all(reason in flat(text) for reason in reasons)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("fact", FACT_EXAMPLES, ids=lambda f: type(f).__name__)
def test_text_and_html_say_the_same_sentences(fact: Fact) -> None:
    mail = write(letter(fact), MAIL, "", NOW)
    verdict = flat(part(mail, "plain").split("\n\n")[0])
    assert verdict in part(mail, "html")


@pytest.mark.parametrize(
    ("fact", "subject"),
    [
        (
            FACT_EXAMPLES[0],
            "Drift confirmed in bookings of 2016-05-02 to 2016-05-29: retrain requested (champion v1)",
        ),
        (FACT_EXAMPLES[2], "New version v2 registered as challenger (champion stays v1)"),
        (FACT_EXAMPLES[4], "Retrain of 2016-05-29 failed and needs a person: there is still no champion"),
        (ChampionChanged("1", None, 1, END, "first"), "First champion: v1 serves from now on"),
        (FACT_EXAMPLES[5], "Champion is now v2 (was v1)"),
    ],
)
def test_subject_says_it_all(fact: Fact, subject: str) -> None:
    assert write(letter(fact), MAIL, "", NOW)["Subject"] == subject
    assert write(letter(fact), MAIL, "staging", NOW)["Subject"] == f"[staging] {subject}"


def test_drift_mail_shows_signals_and_columns_with_before_and_after_in_both_parts() -> None:
    mail = write(letter(stored=decision(column("lead_days", 0.22))), MAIL, "", NOW)
    text, html = part(mail, "plain"), part(mail, "html")
    assert "lead_days: lead_days then → lead_days now" in text
    assert "weight 22%, score 0.312, limit 0.1 (wasserstein)" in text
    assert "lead_days then → lead_days now" in html and ">22%<" in html and "limit 0.1" in html
    for body in (text, html):
        assert "domain classifier" in body and "0.750" in body and "watch" in body
        assert "4,210 bookings" in body


def test_realised_harm_is_told_as_measured_as_absent_or_as_not_measurable() -> None:
    told = {
        verdict: flat(part(write(letter(stored=decision(loss=verdict)), MAIL, "", NOW), "plain"))
        for verdict in (Verdict.ALARM, Verdict.OK, Verdict.NOT_EVALUATED)
    }
    assert "are worse than they should be (excess log loss 0.041, alarm from 0.02)" in told[Verdict.ALARM]
    assert "still hold" in told[Verdict.OK]
    assert "cannot be measured yet (too few)" in told[Verdict.NOT_EVALUATED]
    assert "1 of 2 evaluated signals" in told[Verdict.NOT_EVALUATED]


def test_at_most_eight_columns_the_weightiest_first_and_the_rest_is_counted() -> None:
    columns = [column(f"c{i:02}", weight=i / 100) for i in range(11)]
    mail = write(letter(stored=decision(*columns, column("quiet", 0.9, drifted=False))), MAIL, "", NOW)
    for body in (part(mail, "plain"), part(mail, "html")):
        shown = [c.column for c in columns if f"{c.column} then" in body]
        assert shown == [f"c{i:02}" for i in range(3, 11)]
        assert body.index("c10 then") < body.index("c03 then")
        assert "3 more of less weight" in body and "quiet" not in body


def test_a_column_that_could_not_be_evaluated_is_told_with_the_reason() -> None:
    broken = column("price", drifted=False, score=None, why="no value in the window")
    mail = write(letter(stored=decision(broken)), MAIL, "", NOW)
    for body in (part(mail, "plain"), part(mail, "html")):
        assert "no value in the window" in body


def test_html_escapes_values_from_data() -> None:
    bad = "<script>alert(1)</script>"
    stored = decision(column("a_<b>", after=bad, why=bad))
    stored = replace(stored, decision=Decision(Action.RETRAIN_DRIFT, (bad,)))
    fact = replace(FACT_EXAMPLES[0], champion=bad)  # type: ignore[call-arg]
    mail = write(letter(fact, stored, links={bad: 'http://x/"><script>'}), MAIL, bad, NOW)
    html = part(mail, "html")
    assert "<script" not in html and "<b>a" in html and "a_<b>" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_only_web_addresses_become_links() -> None:
    mail = write(letter(links={"Evil": "javascript:alert(1)", "Run": "https://prefect.example/run"}), MAIL, "", NOW)
    html = part(mail, "html")
    assert "javascript" not in html and 'href="https://prefect.example/run"' in html


def test_newlines_in_data_cannot_inject_headers() -> None:
    fact = replace(FACT_EXAMPLES[0], champion="1\r\nBcc: thief@example.org\r\n\r\nhello")  # type: ignore[call-arg]
    mail = write(letter(fact), MAIL, "stage\nX-Evil: yes", NOW)
    read = message_from_bytes(mail.as_bytes(), policy=default)
    assert read["Bcc"] is None and read["X-Evil"] is None
    assert read["Subject"].startswith("[stage X-Evil: yes] Drift confirmed")


def test_headers_are_for_machines_too() -> None:
    mail = write(letter(), MAIL, "", NOW)
    read = message_from_bytes(mail.as_bytes(), policy=default)
    assert read["Message-ID"] == f"<{letter().message.id}@cancellations>"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["List-Id"] == "<cancellations.hotel.example>"
    assert read["X-Cancellations-Topic"] == "cancellations.drift.detected"
    assert read["Date"].datetime == NOW
    assert [a.addr_spec for a in read["To"].addresses] == ["ada@hotel.example", "bo@hotel.example"]
    assert str(read["From"]) == "Model <model@hotel.example>"


def test_the_same_message_has_the_same_id_whenever_it_is_written() -> None:
    first, again = write(letter(), MAIL, "", NOW), write(letter(), MAIL, "production")
    other = write(letter(FACT_EXAMPLES[1]), MAIL, "", NOW)
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]


def test_picture_is_inside_and_the_html_points_at_it() -> None:
    mail = write(letter(picture=PICTURE), MAIL, "", NOW)
    assert mail.get_content_type() == "multipart/alternative"
    related = list(mail.iter_parts())[1]
    assert related.get_content_type() == "multipart/related"
    html, picture = related.iter_parts()
    assert picture.get_content() == PICTURE and picture.get_content_type() == "image/png"
    assert f'src="cid:{picture["Content-ID"].strip("<>")}"' in html.get_content()


def test_without_a_picture_nothing_points_at_one() -> None:
    mail = write(letter(), MAIL, "", NOW)
    assert "<img" not in part(mail, "html")
    assert [p.get_content_type() for p in mail.iter_parts()] == ["text/plain", "text/html"]


def test_a_message_that_cannot_be_written_says_why() -> None:
    message = letter().message
    with pytest.raises(BadInput, match=r"no mail for the topic 'x'.*cancellations\.drift\.detected"):
        write(Letter(replace(message, topic="x")), MAIL, "")
    with pytest.raises(BadInput, match="lacks the field 'champion'"):
        write(Letter(replace(message, payload={})), MAIL, "")


@pytest.mark.parametrize("wrong", ["", "nobody", "a@b\nBcc: c@d", "a b@c d"])
def test_an_address_that_cannot_be_used_names_the_setting(wrong: str) -> None:
    with pytest.raises(BadInput, match="CANCELLATIONS_MAIL__OWNERS"):
        write(letter(), Mail(owners=[wrong]), "")
    with pytest.raises(BadInput, match="CANCELLATIONS_MAIL__SENDER"):
        write(letter(), Mail(sender=wrong), "")


def test_no_owner_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="CANCELLATIONS_MAIL__OWNERS is empty"):
        write(letter(), Mail(owners=[]), "")


def test_documentation_lists_every_setting_with_its_default_and_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mail.md").read_text(encoding="utf-8")
    for name, field in Mail.model_fields.items():
        default_ = (
            "" if field.default is None else f"`{json.dumps(field.default) if name == 'owners' else field.default}`"
        )
        meaning = (field.description or "").replace("|", "\\|")
        assert f"| `CANCELLATIONS_MAIL__{name.upper()}` | {default_} | {meaning} |" in page
    assert all(f"`{fact.topic}`" in page for fact in FACTS)
