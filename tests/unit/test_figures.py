"""What benchmarks print: medians with honest intervals, and a reach that only a whole interval meets."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import BOOTSTRAP_FROM, Curve, Figure, Options, Outcome, Table, interval, peak_memory, run
from cancellations.errors import BadInput, ServiceDown

positive = st.floats(0.001, 1e6)


@given(st.lists(positive, min_size=1, max_size=BOOTSTRAP_FROM - 1))
def test_the_interval_of_a_few_repetitions_is_their_smallest_and_largest(samples: list[float]) -> None:
    assert interval(samples) == (min(samples), max(samples))


@given(st.lists(positive, min_size=BOOTSTRAP_FROM, max_size=30))
def test_the_interval_of_many_repetitions_lies_within_them_and_holds_their_median(samples: list[float]) -> None:
    low, high = interval(samples)
    assert min(samples) <= low <= np.median(samples) <= high <= max(samples)
    assert interval(samples) == (low, high)


def test_a_bootstrap_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    found = [interval(list(draw.lognormal(0.0, 0.5, 25))) for _ in range(200)]
    assert 0.88 <= np.mean([low <= 1.0 <= high for low, high in found]) <= 0.99


@pytest.mark.parametrize(
    ("reach", "text", "holds"),
    [
        ({"at_most": 3.0}, "<= 3", True),
        ({"at_most": 2.9}, "<= 2.9", False),  # the median meets it, the interval does not
        ({"at_least": 1.0}, ">= 1", True),
        ({"at_least": 1.1}, ">= 1.1", False),
        ({}, None, None),
    ],
)
def test_a_reach_holds_only_when_the_whole_interval_meets_it(
    reach: dict[str, float], text: str | None, holds: bool | None
) -> None:
    assert Figure.of("f", [1.0, 2.0, 3.0], "s", **reach) == Figure("f", 2.0, 1.0, 3.0, "s", text, holds)


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_measurements_that_are_missing_or_not_finite_are_refused(samples: list[float]) -> None:
    with pytest.raises(BadInput, match="finite measurements"):
        Figure.of("f", samples, "s")


def measured(options: Options) -> Outcome:
    figures = (
        Figure.of("way", [1.0, 2.0, 3.0], "s", at_most=2),
        Figure.of("rate", [float(options.seed)], "rows/s"),
    )
    return Outcome(figures, beside="nothing", input=f"{options.data}", repetitions=3)


def test_json_is_one_object_with_the_figures_and_all_that_belongs_to_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("way", "", measured, ["--json", "--quick", "--seed", "7", "--data", "b.csv"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["figures"] == [
        {"name": "way", "value": 2.0, "low": 1.0, "high": 3.0, "unit": "s", "reach": "<= 2", "holds": False},
        {"name": "rate", "value": 7.0, "low": 7.0, "high": 7.0, "unit": "rows/s", "reach": None, "holds": None},
    ]
    assert (told["quick"], told["seed"], told["input"]) == (True, 7, "b.csv")
    assert {"python", "sqlite", "scikit-learn", "prefect"} <= set(told["versions"])


def test_the_table_is_markdown_with_one_row_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    run("way", "", measured, ["--seed", "123456"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[2:] == [
        ["way", "2", "1 to 3", "s", "<= 2", "NO"],
        ["rate", "123,456", "123,456 to 123,456", "rows/s", "", ""],
    ]
    assert any("min to max of 3 repetitions" in line for line in lines)


def test_tables_follow_the_figures_and_stand_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("by fault", ("fault", "seen"), (("price × 100", "26"), ("none", "")))

    def with_table(options: Options) -> Outcome:
        return replace(measured(options), tables=(table,))

    run("way", "", with_table, [])
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("by fault")
    assert lines[at + 2] == "| fault       | seen |"
    assert lines[at + 4 : at + 6] == ["| price × 100 | 26   |", "| none        |      |"]
    run("way", "", with_table, ["--json"])
    told = json.loads(capsys.readouterr().out)["tables"]
    assert told == [{"title": "by fault", "headings": ["fault", "seen"], "rows": [["price × 100", "26"], ["none", ""]]}]


def test_curves_and_seconds_stand_in_the_json_alone_and_each_figure_has_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    curve = Curve("loss", "static", ("2016-04-04", "2016-04-11"), (0.5, 0.25), marks=("2016-04-11",))

    def with_curve(options: Options) -> Outcome:
        return replace(measured(options), curves=(curve,))

    run("way", "", with_curve, [])
    assert "2016-04-11" not in capsys.readouterr().out
    run("way", "", with_curve, ["--json"])
    text = capsys.readouterr().out
    told = json.loads(text)
    assert told["curves"] == [
        {
            "figure": "loss",
            "name": "static",
            "x": ["2016-04-04", "2016-04-11"],
            "y": [0.5, 0.25],
            "marks": ["2016-04-11"],
            "low": [],
            "high": [],
        }
    ]
    assert told["seconds"] >= 0
    assert [line for line in text.splitlines() if '"name": "rate"' in line] == [f"  {json.dumps(told['figures'][1])}"]


def test_only_check_turns_a_missed_reach_into_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("way", "", measured, []) == 0
    assert run("way", "", measured, ["--check"]) == 1
    assert "reach not met: way" in capsys.readouterr().err


def test_an_error_of_the_project_becomes_a_sentence_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def down(options: Options) -> Outcome:
        raise ServiceDown("the server does not answer")

    assert run("way", "", down, []) == 3
    assert capsys.readouterr().err == "python -m benchmarks.way: the server does not answer\n"


def test_peak_memory_is_at_least_what_this_process_holds_now() -> None:
    import psutil

    peak = peak_memory()
    if peak is None:
        pytest.skip("the system does not tell")
    assert peak >= 0.9 * psutil.Process().memory_info().rss / 2**20


def test_a_figure_that_numpy_counted_is_told_as_json() -> None:
    counted = Figure("delay", np.int64(14), np.int64(7), np.float64(np.inf), "days", "<= 28", np.bool_(False))  # type: ignore[arg-type]
    told = json.loads(json.dumps(asdict(counted)))
    assert (told["value"], told["low"], told["holds"]) == (14.0, 7.0, False)
