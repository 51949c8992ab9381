"""The report page: complete in itself, escaped, and drawn whatever a home holds."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.checks import Check, DayCheck, Finding
from cancellations.domain.comparison import SequencePolicy
from cancellations.domain.features import CATEGORICAL, FEATURES
from cancellations.domain.promotion import Change, Kind, LedgerRow, Mode, Trial, TrialState
from cancellations.domain.retraining import (
    Action,
    ColumnDrift,
    Decision,
    MonitorReport,
    RequestState,
    RetrainRequest,
    Signal,
    Verdict,
    Window,
)
from cancellations.pages import CHANGES, write
from cancellations.ports import Observation, Overview, StoredDecision, VersionRecord
from monitoring.page_plots import draw_columns, draw_losses, draw_scores, draw_time_line

END = date(2016, 6, 27)
WINDOW = Window(END - timedelta(days=27), END)
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
EVIL = "<script>alert('x')</script>\r\n& \x07"


def column(name: str, *, drifted: bool = False, score: float | None = 0.2, why: str = "") -> ColumnDrift:
    return ColumnDrift(name, "wasserstein", score, 0.3, drifted, 0.1, "median 1", "median 2", why)


def stored(
    end: date = END, champion: str = "1", action: Action = Action.NONE, value: float | None = 0.01
) -> StoredDecision:
    verdict = Verdict.NOT_EVALUATED if value is None else Verdict.OK
    signals = (
        Signal("matured excess loss", value, 0.02, verdict, 2.0, 900, "before", "after", low=-0.01, high=0.03),
        Signal("calibration bias", value, 0.05, verdict, 0.0, 900),
        Signal("volume", 1.0, 3.0, Verdict.OK, 0.0, 900, mailed=True),
    )
    window = Window(end - timedelta(days=27), end)
    columns = (
        column("price", drifted=True, score=0.9),
        column("meal"),
        column("adults", score=None, why="all missing"),
    )
    report = MonitorReport(champion, window, 900, 5_000, signals, columns)
    return StoredDecision(f"report-{end}", report, Decision(action, ("evidence 0.1 of 0.75",)), None, NOW)


def observation(rows: int = 400, matured: int = 300) -> Observation:
    draw = np.random.default_rng(0)

    def features(count: int) -> pd.DataFrame:
        numbers = {name: draw.normal(size=count) for name in FEATURES if name not in CATEGORICAL}
        kinds = {name: draw.choice(["A", "B"], count) for name in CATEGORICAL}
        return pd.DataFrame(numbers | kinds)[list(FEATURES)]

    return Observation(
        champion="1",
        start=WINDOW.start,
        end=WINDOW.end,
        reference=features(500),
        current=features(rows),
        probability=draw.random(rows),
        matured_label=draw.integers(0, 2, matured).astype(float),
        matured_probability=draw.random(matured),
        importance={},
        reference_probability=draw.random(500),
    )


def ledger(changes: int = 3) -> tuple[LedgerRow, ...]:
    rows = []
    for number in range(changes):
        change = Change.FIRST if number == 0 else Change.ROLLED_BACK if number == 2 else Change.PROMOTED
        on = END - timedelta(days=60 - 10 * number)
        rows.append(
            LedgerRow(number + 1, str(number + 1), None, change, f"reason {number}", "ann", None, None, on, NOW)
        )
    return tuple(rows)


def overview(**given: object) -> Overview:
    record = VersionRecord("1", "request", "run", date(2016, 5, 2), "digest", {})
    whole = Overview(stored(), record, observation(), (stored(),), ledger(), (), ())
    return replace(whole, **given)  # type: ignore[arg-type]


def page(found: Overview, links: dict[str, str] | None = None, pictures: dict[str, bytes] | None = None) -> str:
    return write(found, pictures or {}, links or {}, "", NOW)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_a_page_needs_no_script_no_network_and_no_file_beside_it() -> None:
    text = page(overview(), {"champion": "http://localhost:5000/#/models"}, {"drift": b"\x89PNG", "scores": b"\x89PNG"})
    tags = Tags(text).seen
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "base"}
    images = [given for tag, given in tags if tag == "img"]
    assert len(images) == 2
    assert all(str(given["src"]).startswith("data:image/png;base64,") and given["alt"] for given in images)
    assert not [name for _, given in tags for name in given if name.startswith("on")]
    assert "url(" not in text and "@import" not in text
    assert [given["href"] for tag, given in tags if tag == "a"] == ["http://localhost:5000/#/models"]


def test_what_data_and_people_wrote_is_escaped_and_no_link_but_the_webs() -> None:
    hostile = replace(stored(), decision=Decision(Action.HOLD, (EVIL,)))
    report = replace(hostile.report, columns=(replace(column(EVIL, drifted=True), before=EVIL, after=EVIL),))
    found = overview(
        stored=replace(hostile, report=report),
        ledger=(replace(ledger()[0], by=EVIL, reason=EVIL, champion=EVIL),),
        checks=(DayCheck(END, 9, 300, (Finding(Check.MISSING, EVIL, 0.5, 0.0, 0.1, 9),)),),
    )
    text = write(found, {}, {"bad": "javascript:alert(1)", EVIL: "https://example.org/"}, EVIL, NOW)
    assert "<script" not in text and "javascript:" not in text and "\x07" not in text
    assert text.count("&lt;script&gt;") >= 7


@pytest.mark.parametrize("action", list(Action))
def test_the_first_line_says_what_was_decided(action: Action) -> None:
    text = page(overview(stored=stored(action=action)))
    told = re.search(r"<h1>(.*?)</h1>", text)
    assert told is not None
    assert told[1].startswith("Retrain" if action.retrains else "No retrain")


def test_other_references_stand_beside_the_one_that_decides() -> None:
    report = stored().report
    other = replace(
        report,
        reference="the 13 weeks before",
        signals=(Signal("volume", None, 3.0, Verdict.NOT_EVALUATED, 0.0, 0, why="0 bookings in the reference"),),
        columns=tuple(replace(c, score=0.012, drifted=False) for c in report.columns[:1]),
    )
    text = page(overview(beside=(other,)))
    assert "Against other references" in text and "the champion&#39;s training (decides)" in text
    assert "not evaluated: 0 bookings in the reference" in text and ">0.012</td>" in text
    assert "Against other references" not in page(overview())


def test_every_signal_and_column_of_the_report_is_in_its_table() -> None:
    text = page(overview())
    for told in ("matured excess loss", "-0.010 to 0.030", "none, mailed", "price", "meal", "adults", "all missing"):
        assert told in text, told
    # Drifted and unevaluated columns stand first.
    assert text.index(">price<") < text.index(">meal<") and text.index(">adults<") < text.index(">meal<")


def test_of_a_long_history_the_last_changes_are_shown_newest_first_and_the_others_counted() -> None:
    text = page(overview(ledger=ledger(CHANGES + 5)))
    assert "5 earlier ones" in text
    assert text.index(f"reason {CHANGES + 4}<") < text.index("reason 5<")
    assert "reason 4<" not in text


# --- pictures -------------------------------------------------------------------------------------


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def trial(kind: Kind, state: TrialState = TrialState.RUNNING) -> Trial:
    opened = END - timedelta(days=30)
    last = opened + timedelta(days=56)
    return Trial("t", kind, "1", "2", 1, opened, opened, last, Mode.AUTO, 0.5, SequencePolicy(), state=state)


def time_line(decisions: object, ledger: object = (), trials: object = (), requests: object = ()) -> bytes:
    return draw_time_line(overview(decisions=decisions, ledger=ledger, trials=trials, requests=requests))


def test_the_time_line_is_drawn_of_any_history_and_shows_each_part_of_it() -> None:
    looks = tuple(stored(END - timedelta(days=7 * n)) for n in range(5, -1, -1))
    bare = time_line(looks, ledger(1))
    assert size(bare) == (1200, 560)
    more = {
        "a promotion": (looks, ledger(2)),
        "a rollback": (looks, ledger(3)),
        "a trial": (looks, ledger(1), (trial(Kind.TRIAL),)),
        "a probation": (looks, ledger(1), (trial(Kind.PROBATION),)),
        "a retrain": (looks, ledger(1), (), (RetrainRequest("r", END, "x", RequestState.CANDIDATE),)),
        "a refusal": (looks, ledger(1), (), (RetrainRequest("r", END, "x", RequestState.REJECTED),)),
        "an action": ((*looks[:-1], stored(action=Action.RETRAIN_DRIFT)), ledger(1)),
        "nothing evaluated": ((*looks[:-1], stored(value=None)), ledger(1)),
    }
    drawn = {name: time_line(*given) for name, given in more.items()}
    assert len({bare, *drawn.values()}) == len(more) + 1, "each part of a history changes the picture"
    assert size(time_line((stored(),))) == (1200, 560)


def test_columns_are_drawn_that_are_missing_constant_or_of_many_kinds() -> None:
    report = stored().report
    seen = observation()
    seen.current["price"] = np.nan
    seen.current["lead_days"] = 3.0
    seen.reference["lead_days"] = 3.0
    seen.current["meal"] = [f"$meal_{n}$" for n in range(len(seen.current))]
    columns = tuple(column(name, score=0.1) for name in ("price", "lead_days", "meal", "adults", "not there"))
    width, height = size(draw_columns(replace(report, columns=columns), seen))
    assert (width, height > 300) == (1200, True)
    assert size(draw_columns(replace(report, columns=()), seen))[0] == 1200


def test_scores_and_losses_are_drawn_without_outcomes_and_without_bookings() -> None:
    for seen in (observation(), observation(matured=0), observation(rows=0, matured=1)):
        assert size(draw_scores(seen)) == (1200, 460)
    two = (stored(END - timedelta(days=7)), stored(champion="2"))
    for decisions in ((stored(),), (stored(value=None),), two):
        assert size(draw_losses(overview(decisions=decisions))) == (1200, 420)
