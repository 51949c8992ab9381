"""The monitor on the real Evidently, with windows built to break it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cancellations.domain.features import CATEGORICAL, FEATURES, NUMERIC
from cancellations.domain.in_flight import Slice
from cancellations.domain.retraining import ColumnDrift, Verdict
from cancellations.domain.volume import Volume
from cancellations.ports import Observation
from cancellations.settings import MonitorSettings
from monitoring.distances import distance
from monitoring.drift import Distance, evidently, prediction_drift
from monitoring.report import EvidentlyMeasurement, EvidentlyMonitor

Change = Callable[[pd.DataFrame], pd.DataFrame]
WEIGHT = 1 / len(FEATURES)


def bookings(rows: int, seed: int) -> pd.DataFrame:
    """Features of bookings from one unchanging world."""
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame({name: chance.gamma(2.0, 10.0, rows) for name in NUMERIC})
    for name in CATEGORICAL:
        frame[name] = chance.choice(["A", "B", "C"], rows, p=[0.6, 0.3, 0.1])
    return frame


def measure(
    current: pd.DataFrame, reference: pd.DataFrame | None = None, distance: Distance = evidently
) -> EvidentlyMeasurement:
    chance = np.random.default_rng(3)
    probability = chance.uniform(0.1, 0.9, 2_000)
    label = (chance.random(2_000) < probability).astype(float)
    return EvidentlyMonitor(MonitorSettings(sample_rows=1_500), distance).measure(
        Observation(
            champion="1",
            start=date(2016, 5, 1),
            end=date(2016, 5, 28),
            reference=bookings(2_000, 1) if reference is None else reference,
            current=current,
            probability=np.full(len(current), 0.3),
            matured_label=label,
            matured_probability=probability,
            importance=dict.fromkeys(FEATURES, WEIGHT),
            in_flight=(Slice("all bookings", 900, 700, 0.3, 0.31, 0.9),),
            reference_probability=np.full(2_000, 0.3),
            volume=Volume(1_000, 990.0, 0.1, 0),
        )
    )


def columns(measurement: EvidentlyMeasurement) -> dict[str, ColumnDrift]:
    return {c.column: c for c in measurement.report.columns}


@pytest.fixture(scope="module")
def quiet() -> EvidentlyMeasurement:
    return measure(bookings(1_000, 2))


def test_an_unchanged_world_has_no_drifted_column_and_every_column_a_score(quiet: EvidentlyMeasurement) -> None:
    assert set(columns(quiet)) == set(FEATURES)
    assert all(c.score is not None and not c.drifted and not c.why for c in quiet.report.columns)
    assert {s.verdict for s in quiet.report.signals} <= {Verdict.OK, Verdict.WATCH}


def test_scores_and_verdicts_are_those_of_evidentlys_own_report() -> None:
    from evidently.core import metric_types

    current = bookings(1_000, 2)
    current["price"] = current["price"].where(np.arange(1_000) % 7 > 0) * 1.6
    current["meal"] = np.where(np.arange(1_000) % 3 == 0, None, current["meal"])
    found = measure(current)
    assert found.compared is not None
    told = {}
    for result in found.compared.report().metric_results.values():
        failed = any(test.status is metric_types.TestStatus.FAIL for test in result.tests)
        told[result.metric_value_location.metric.params["column"]] = (float(result.value), failed)
    assert told == {c.column: (c.score, c.drifted) for c in found.report.columns}
    assert {column for column, (_, failed) in told.items() if failed} == {"price", "meal"}


@pytest.mark.parametrize("seed", range(8))
def test_the_twin_in_numpy_measures_what_evidently_measures(seed: int) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.integers(50, 3_000, 2)
    numbers = [pd.Series(chance.gamma(2.0, 10.0 + seed, n).round(seed % 3)) for n in rows]
    numbers[1][:7] = [0.0, -3.0, 1e6, 1e6, 5.0, 5.0, 5.0]
    assert distance("wasserstein", *numbers) == pytest.approx(evidently("wasserstein", *numbers), rel=1e-9)
    flat = [pd.Series(np.full(n, 7.0)) for n in rows]
    assert distance("wasserstein", flat[0], numbers[1]) == pytest.approx(
        evidently("wasserstein", flat[0], numbers[1]), rel=1e-9
    )
    assert distance("wasserstein", *flat) == evidently("wasserstein", *flat) == 0
    # Some of either side alone, and a name that looks like another's number.
    names = [np.array([f"c{i}" for i in range(first, first + 9)] + ["7"], dtype=object) for first in (0, 3)]
    told = [pd.Series(own[chance.integers(0, 10, n)]) for own, n in zip(names, rows, strict=True)]
    assert distance("jensenshannon", *told) == pytest.approx(evidently("jensenshannon", *told), rel=1e-9)
    same = (told[0], told[0].sample(frac=1, random_state=seed))
    assert distance("jensenshannon", *same) == pytest.approx(evidently("jensenshannon", *same), abs=1e-7)


def test_a_look_by_the_twin_says_what_a_look_by_evidently_says() -> None:
    current = bookings(1_000, 2)
    current["price"] = current["price"].where(np.arange(1_000) % 7 > 0) * 1.6
    current["meal"] = np.where(np.arange(1_000) % 3 == 0, None, current["meal"])
    asked, ours = measure(current), measure(current, distance=distance)
    for one, other in zip(asked.report.signals, ours.report.signals, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-9)
        assert (other.name, other.verdict) == (one.name, one.verdict)
    assert [(c.column, c.drifted) for c in asked.report.columns] == [(c.column, c.drifted) for c in ours.report.columns]


def test_scores_that_moved_are_told_by_evidentlys_distance() -> None:
    before = np.random.default_rng(4).beta(2, 3, 4_000)
    moved = prediction_drift(before, np.clip(before + 0.1, 0, 1), 300, 0.3, 0.0)
    assert moved.value == pytest.approx(0.1 / before.std(), rel=0.02)
    assert moved.verdict is Verdict.ALARM
    assert prediction_drift(np.empty(0), before, 300, 0.3, 0.0).verdict is Verdict.NOT_EVALUATED


def test_exactly_the_changed_columns_are_found_and_come_first() -> None:
    current = bookings(1_000, 2)
    current["price"] *= 1.6
    current["deposit_type"] = np.where(np.arange(1_000) % 3 == 0, "C", current["deposit_type"])
    found = measure(current)
    assert {c.column for c in found.report.columns[:2]} == {"price", "deposit_type"}
    assert [c.column for c in found.report.columns if c.drifted] == [c.column for c in found.report.columns[:2]]
    signal = found.report.signal("column drift")
    assert signal is not None and signal.value == pytest.approx(2 * WEIGHT)


def test_scores_are_normed_by_the_reference_not_by_the_window() -> None:
    # A window half as wide again: swapped sides would norm by its own width and score a third less.
    reference, current = bookings(1_500, 1), bookings(1_500, 2)
    current["price"] *= 1.5
    price = columns(measure(current, reference))["price"]
    shift = current["price"].mean() - reference["price"].mean()  # every quantile moves up
    assert price.score == pytest.approx(shift / reference["price"].std(ddof=0), rel=0.02)
    assert price.before == f"median {reference['price'].median():.3g}"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f.drop(columns="price"), "missing in the window"),
        (lambda f: f.assign(price=np.nan), "all 1,000 values are missing"),
        (lambda f: f.assign(price=np.inf), "all 1,000 values are missing"),
        (lambda f: f.assign(price=f["price"].where(f.index < 3)), "only 3 of 1,000"),
    ],
    ids=["column gone", "all missing", "all infinite", "three values"],
)
def test_a_column_that_cannot_be_judged_is_not_evaluated_and_spares_the_others(change: Change, why: str) -> None:
    found = columns(measure(change(bookings(1_000, 2))))
    assert found["price"].score is None and not found["price"].drifted
    assert why in found["price"].why
    assert all(c.score is not None and not c.drifted for c in found.values() if c.column != "price")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(price=f["price"].where(f.index > 0, np.inf)),
        lambda f: f.assign(price=f["price"].where(f.index > 0, 1e12)),
        lambda f: f.assign(price=f["price"].astype(str)),
        lambda f: f.assign(adults=pd.array([*f["adults"][1:].round().astype(int), None], dtype="Int64")),
        lambda f: f.assign(meal=f["meal"].where(f.index > 0, "Half board of a new kind")),
        lambda f: f.assign(hotel=f["hotel"].astype("category")),
        lambda f: f.set_index(pd.Index([7] * len(f))),
    ],
    ids=[
        "one inf",
        "one keying error",
        "numbers as text",
        "nullable",
        "one new category",
        "categorical",
        "equal index",
    ],
)
def test_a_harmless_oddity_fires_nothing(change: Change) -> None:
    found = columns(measure(change(bookings(1_000, 2))))
    assert all(c.score is not None and not c.drifted for c in found.values())


def declared(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same with columns of a mapping's own; codes of shops are numbers, and mean nothing as such."""
    chance = np.random.default_rng(seed)
    return frame.assign(
        deposit_paid=chance.normal(50.0, 5.0, len(frame)),
        shop=chance.choice(["12", "7", "400"], len(frame)),
        label=0.0,
    )


def test_declared_columns_are_watched_like_any_other() -> None:
    reference, current = declared(bookings(2_000, 1), 1), declared(bookings(1_000, 2), 2).drop(columns="label")
    quiet = columns(measure(current, reference))
    assert set(quiet) == {*FEATURES, "deposit_paid", "shop"}
    assert all(c.score is not None and not c.drifted for c in quiet.values())
    assert (quiet["deposit_paid"].method, quiet["shop"].method) == ("wasserstein", "jensenshannon")
    moved = current.assign(deposit_paid=current["deposit_paid"] + 5, shop=current["shop"].replace("12", "9"))
    found = columns(measure(moved, reference))
    assert {name for name, c in found.items() if c.drifted} == {"deposit_paid", "shop"}
    assert found["shop"].after.endswith("12 0%")


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (lambda f: f, lambda f: f.drop(columns=["deposit_paid", "shop"]), "missing in the window"),
        (lambda f: f.drop(columns=["deposit_paid", "shop"]), lambda f: f, "missing in the reference"),
        (
            lambda f: f.assign(deposit_paid=np.nan, shop=pd.Series(np.nan, f.index, dtype=object)),
            lambda f: f,
            "all 1,500 values are missing, or cannot be read, in the reference",
        ),
        (
            lambda f: f,
            lambda f: f.assign(deposit_paid=np.nan, shop=None),
            "all 1,000 values are missing, or cannot be read, in the window",
        ),
    ],
    ids=["not in the window", "declared since", "declared just before", "no longer filled"],
)
def test_a_declared_column_that_one_side_lacks_is_not_evaluated(
    before: Change, now: Change, why: str, tmp_path: Path
) -> None:
    kept = tmp_path / "reference.parquet"
    before(declared(bookings(2_000, 1), 1)).to_parquet(kept)
    current = now(declared(bookings(1_000, 2), 2).drop(columns="label"))
    found = columns(measure(current, pd.read_parquet(kept)))
    assert {(c.score, c.drifted, why in c.why) for c in (found["deposit_paid"], found["shop"])} == {(None, False, True)}
    assert all(found[name].score is not None for name in FEATURES)


def test_a_reference_of_an_earlier_release_is_judged_by_what_it_has() -> None:
    found = measure(bookings(1_000, 2), bookings(2_000, 1).drop(columns="group_size"))
    assert columns(found)["group_size"].why == "the column is missing in the reference"
    assert found.report.evidence() == 0


def test_numbers_of_a_declared_column_may_be_text_in_the_window() -> None:
    reference, current = declared(bookings(2_000, 1), 1), declared(bookings(1_000, 2), 2).drop(columns="label")
    found = columns(measure(current.assign(deposit_paid=current["deposit_paid"].astype(str)), reference))
    assert found["deposit_paid"].score is not None and not found["deposit_paid"].drifted


def test_names_that_mean_something_elsewhere_are_columns_like_any_other() -> None:
    names = ["id", "target", "prediction", "timestamp", "weight", "column", "0"]
    reference, current = (
        bookings(rows, seed).assign(**{n: bookings(rows, seed + 10)["price"] for n in names})
        for rows, seed in ((2_000, 1), (1_000, 2))
    )
    found = columns(measure(current, reference))
    assert {name for name in names if found[name].score is None or found[name].drifted} == set()


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("meal", lambda f: f.assign(meal="All inclusive")),
        ("price", lambda f: f.assign(price=5.0)),
        ("price", lambda f: f.assign(price=f["price"] * 100)),
        ("price", lambda f: f.assign(price=f["price"].where(f.index % 5 > 0))),
        ("meal", lambda f: f.assign(meal=f["meal"].where(f.index % 5 > 0))),
    ],
    ids=["new category", "constant", "times 100", "number goes missing", "category goes missing"],
)
def test_a_real_change_is_found(column: str, change: Change) -> None:
    found = columns(measure(change(bookings(1_000, 2))))
    assert {name for name, c in found.items() if c.drifted} == {column}


def test_a_column_that_is_constant_on_both_sides_is_no_drift() -> None:
    reference, current = bookings(2_000, 1).assign(babies=0.0), bookings(1_000, 2).assign(babies=0.0)
    babies = columns(measure(current, reference))["babies"]
    assert babies.score == 0 and not babies.drifted


def test_the_same_window_gives_the_same_report(quiet: EvidentlyMeasurement) -> None:
    assert measure(bookings(1_000, 2)).report == quiet.report


def test_evidently_s_page_is_written_whole(quiet: EvidentlyMeasurement, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "drift.html"
    assert quiet.save_html(path) == path
    page = path.read_text(encoding="utf-8")
    assert len(page) > 1_000_000
    assert "Value Drift for column deposit_type" in page


def test_a_window_of_one_row_has_no_page(tmp_path: Path) -> None:
    measurement = measure(bookings(1, 2))
    assert measurement.save_html(tmp_path / "drift.html") is None
    assert measurement.report.columns == ()
    judged = {s.name: s.verdict for s in measurement.report.signals}
    assert judged["column drift"] is judged["domain classifier"] is Verdict.NOT_EVALUATED
    assert judged["matured excess loss"] is not Verdict.NOT_EVALUATED
