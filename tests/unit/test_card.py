"""A model card tells what a version is made of, what it is worth and what it cannot know."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
import typer

from cancellations.domain.card import CardFacts, MaturedMonth, matured_months, model_card
from cancellations.domain.evaluation import BIAS, CALIBRATION_ERROR, FIGURES, Evaluation, Interval
from cancellations.registry import LONGEST_DESCRIPTION, shortened
from deployments.cli import app

FOUND = Evaluation(4_757, 3_686, {name: Interval(0.1 + 0.1 * i, 0.05, 0.75) for i, name in enumerate(FIGURES)})
THEIRS = Evaluation(4_757, 3_686, {name: Interval(0.15 + 0.1 * i, 0.05, 0.75) for i, name in enumerate(FIGURES)})
FACTS = CardFacts(
    model="cancellations",
    version="7",
    request_id="2016-09-26-drift",
    reason="drift confirmed",
    as_of=date(2016, 9, 26),
    rows=31_204,
    cancel_rate=0.294,
    booked_from=date(2015, 10, 5),
    booked_until=date(2016, 9, 24),
    months=tuple(MaturedMonth(f"{2015 + (m + 8) // 12}-{(m + 8) % 12 + 1:02d}", 100 * (m + 1), 0.3) for m in range(13)),
    data_digest="0123456789abcdef",
    maturity="an outcome is final one day after arrival",
    recipe="hist-gradient-boosting/1",
    parameters={"recipe": "hist-gradient-boosting/1", "seed": 7, "weights": "a | b"},
    backtest_from=date(2016, 8, 16),
    backtest_until=date(2016, 9, 26),
    evaluation=FOUND,
    importance={f"column_{n:02d}": (15 - n) / 120 for n in range(15)},
    code_version="0.2.0",
    packages={"scikit-learn": "1.9.0", "python": "3.11.7"},
    sources=("bookings.csv",),
    champion="5",
    champion_evaluation=THEIRS,
    gain=Interval(0.033, 0.0207, 0.0477),
    gate=("passed: log loss 0.4928",),
)


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_a_card_tells_what_the_version_was_made_of() -> None:
    card = model_card(FACTS)
    assert card.startswith("# cancellations, version 7\n")
    data = rows(section(card, "Data"))
    assert data["as of"] == ["2016-09-26"] and data["bookings"] == ["31,204, all with a final outcome"]
    assert data["booked"] == ["2015-10-05 to 2016-09-24"] and data["cancelled or no-show"] == ["29.4%"]
    assert data["sources"] == ["bookings.csv"] and data["digest"] == ["`0123456789abcdef`"]
    assert data["2015-09"] == ["100", "30.0%"] and data["2016-09"] == ["1,300", "30.0%"]
    recipe = rows(section(card, "Recipe"))
    assert recipe["seed"] == ["7"] and recipe["weights"] == [r"a \| b"]
    made = rows(section(card, "Made with"))
    assert made["code"] == ["0.2.0"] and made["scikit-learn"] == ["1.9.0"]


def test_months_of_more_than_a_year_ago_are_one_row() -> None:
    earlier = (MaturedMonth("2015-07", 300, 0.2), MaturedMonth("2015-08", 100, 0.4))
    data = rows(section(model_card(replace(FACTS, months=(*earlier, *FACTS.months[1:]))), "Data"))
    assert data["2015-07 to 2015-08"] == ["400", "25.0%"]
    assert "2015-08" not in data and data["2015-10"] == ["200", "30.0%"]


def test_a_card_tells_each_figure_with_its_interval_beside_the_champions() -> None:
    text = section(model_card(FACTS), "Figures")
    assert "4,757 bookings of 3,686 booking groups" in text and "2016-08-16 to 2016-09-26" in text
    told = rows(text)
    assert told["figure"] == ["this version", "champion 5"]
    for name, title in FIGURES.items():
        assert told[title] == [str(FOUND.figures[name]), str(THEIRS.figures[name])]
    assert "it saves +0.0330 of log loss per booking (+0.0207 to +0.0477), which chance does not explain" in text
    assert "passed: log loss 0.4928" in text


def test_a_first_version_has_no_champion_beside_it() -> None:
    card = model_card(replace(FACTS, champion=None, champion_evaluation=None, gain=None))
    text = section(card, "Figures")
    assert "There was no champion to compare it with." in text
    assert rows(text)["figure"] == ["this version"]
    assert "cancellations compare OTHER 7" in card


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (Interval(0.01, -0.01, 0.03), "which may be chance"),
        (Interval(-0.02, -0.03, -0.01), "it saves -0.0200 of log loss per booking (-0.0300 to -0.0100), which chance"),
        (Interval(0.01, None, None), "too few groups for an interval"),
        (None, "the gain is not on record"),
    ],
)
def test_a_gain_is_told_as_surely_as_it_is_known(gain: Interval | None, told: str) -> None:
    assert told in section(model_card(replace(FACTS, gain=gain)), "Figures")


@pytest.mark.parametrize(
    ("bias", "error", "told"),
    [
        (Interval(0.02, 0.01, 0.03), Interval(0.04, 0.02, 0.06), "2.0 points too high. In 10 bins"),
        (
            Interval(-0.02, -0.03, 0.01),
            Interval(0.04, 0.02, 0.06),
            "2.0 points too low, which may be chance. In 10 bins",
        ),
        (Interval(0.02, None, None), Interval(0.04, 0.0, 0.08), "without any fault can look like that"),
        (None, Interval(0.04, 0.02, 0.06), "Not measured."),
    ],
)
def test_calibration_is_told_in_words(bias: Interval | None, error: Interval, told: str) -> None:
    evaluation = replace(FOUND, figures={**FOUND.figures, BIAS: bias, CALIBRATION_ERROR: error})
    assert told in section(model_card(replace(FACTS, evaluation=evaluation)), "Calibration")


def test_the_ten_features_that_matter_most_are_named_and_the_others_summed() -> None:
    text = section(model_card(FACTS), "What it looks at")
    named = [name for name in rows(text) if name.startswith("column_")]
    assert named == [f"column_{n:02d}" for n in range(10)]
    assert "All others together: 12.5%." in text  # 5 + 4 + 3 + 2 + 1 of 120


def test_a_card_says_what_the_version_cannot_know_and_what_its_labels_mean() -> None:
    text = section(model_card(FACTS), "Limits")
    for limit in ("What it cannot know", "What a label means", "Groups", "Delayed labels", "Not itself tested"):
        assert f"**{limit}.**" in text
    assert "an outcome is final one day after arrival" in text
    assert "**Not for**" in section(model_card(FACTS), "Use")


def test_a_card_that_is_written_before_the_version_has_its_number_leaves_room_for_it() -> None:
    card = model_card(replace(FACTS, version=None))
    assert card.startswith("# cancellations\n") and "cancellations reproduce VERSION" in card


def test_figures_that_cannot_be_told_are_said_to_be_so() -> None:
    nothing = Evaluation(1, 1, dict.fromkeys(FIGURES))
    assert rows(section(model_card(replace(FACTS, evaluation=nothing)), "Figures"))["AUC"][0] == "cannot be told"


def test_months_count_what_matured_in_each() -> None:
    days = pd.Series(pd.to_datetime(["2016-02-01", "2016-01-31", "2016-02-29"]))
    assert matured_months(days, np.array([1.0, 0.0, 0.0])) == (
        MaturedMonth("2016-01", 1, 0.0),
        MaturedMonth("2016-02", 2, 0.5),
    )


def test_commands_of_a_card_that_stand_in_the_command_line_exist() -> None:
    named = set(re.findall(r"^cancellations (\w+)", model_card(FACTS), re.MULTILINE))
    known = set(typer.main.get_command(app).commands)
    assert named - known <= {"reproduce", "compare"}
    assert {"explain", "rollback"} <= named


@pytest.mark.parametrize("sections", [1, 40])
def test_a_card_fits_into_the_description_of_a_version_by_whole_sections(sections: int) -> None:
    card = model_card(FACTS) + "".join(f"\n## Section {n}\n\n{'word ' * 40}\n" for n in range(sections))
    told = shortened(card)
    assert len(told) <= LONGEST_DESCRIPTION
    if told != card:
        kept = told.partition("\n\nThe rest of this card is in `model_card.md`")[0]
        assert card.startswith(kept) and card[len(kept) :].lstrip().startswith("## ")
        assert len(kept) > LONGEST_DESCRIPTION - 400
    assert (told == card) == (len(card) <= LONGEST_DESCRIPTION)


def test_a_card_of_one_endless_section_is_cut_where_the_room_ends() -> None:
    told = shortened("x" * 9_000)
    assert len(told) <= LONGEST_DESCRIPTION and told.startswith("x" * 4_900)
