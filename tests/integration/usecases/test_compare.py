"""Two versions on the same bookings: of which neither can have learnt, with features as they were scored."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import mlflow.artifacts
import numpy as np
import pandas as pd
import pytest
from world import EVALUATOR, FIRST, POLICY, SECOND, WEEK, Table, World, simulator

from cancellations.domain.comparison import log_loss
from cancellations.domain.labels import matured
from cancellations.errors import BadInput, NotEnoughData
from cancellations.ports import SourceBatch
from cancellations.usecases.compare import Compared, SideBySide, compare
from monitoring.plots import ReportPictures

LATER = SECOND + 8 * WEEK
MIDDLE = FIRST + WEEK


def side_by_side(world: World, first: str = "1", second: str = "2", as_of: date = LATER, days: int = 56) -> Compared:
    return compare(
        first,
        second,
        store=world.store,
        registry=world.registry,
        evaluator=EVALUATOR,
        pictures=ReportPictures(),
        rule=POLICY.labels,
        seed=POLICY.seed,
        as_of=as_of,
        days=days,
    )


@pytest.fixture
def ended(challenged: World) -> World:
    """All bookings that the challenger was not trained on have their outcome."""
    challenged.ingest(until=LATER, after=SECOND)
    challenged.score(until=SECOND)
    return challenged


def cohort(world: World, trained: date, as_of: date = LATER) -> pd.DataFrame:
    with world.store.begin() as work:
        history = work.history(booked_until=as_of, known_until=as_of)
    return matured(history, POLICY.labels, as_of, after=trained)


def test_both_are_judged_on_what_matured_since_the_later_training(ended: World) -> None:
    found = side_by_side(ended).found
    rows = cohort(ended, trained=SECOND)
    assert found.bookings == len(rows) > 1_000
    assert found.left_out == 0
    assert found.cancel_rate == pytest.approx(rows["label"].mean())
    assert SECOND < found.matured_from < found.matured_until <= LATER
    for side, trained in ((found.first, FIRST), (found.second, SECOND)):
        record = ended.registry.record(side.version)
        assert (side.trained_as_of, side.recipe, side.data_digest) == (trained, "matured/1", record.data_digest)
        assert side.training_rows == len(ended.registry.training(side.version))


def test_figures_are_those_of_each_version_on_each_booking(ended: World) -> None:
    found = side_by_side(ended).found
    rows = cohort(ended, trained=SECOND)
    with ended.store.begin() as work:
        features = work.features(rows["reservation_id"])
    features = features.loc[rows["reservation_id"]]
    theirs, ours = (ended.registry.load(version).predict(features) for version in ("1", "2"))
    losses = log_loss(rows["label"], theirs), log_loss(rows["label"], ours)
    for side, loss in zip((found.first, found.second), losses, strict=True):
        figure = side.evaluation.figures["log_loss"]
        assert figure is not None and figure.value == pytest.approx(loss.mean())
    assert found.gain.value == pytest.approx((losses[0] - losses[1]).mean())
    assert found.gain.low is not None and found.gain.high is not None
    assert found.gain.low < found.gain.value < found.gain.high
    assert found.apart == pytest.approx(np.abs(ours - theirs).mean())

    for column in ("hotel", "market_segment"):
        parts = [part for part in found.parts if part.column == column]
        assert {part.value: part.bookings for part in parts} == rows[column].value_counts().to_dict()
        saved = sum(part.gain.value * part.bookings for part in parts) / len(rows)
        assert saved == pytest.approx(found.gain.value)
        for part in parts:
            assert part.gain.value == pytest.approx(part.first - part.second)

    apart = pd.Series(np.abs(ours - theirs), rows["reservation_id"]).nlargest(20)
    told = {one.reservation_id: abs(one.first - one.second) for one in found.disagreements}
    assert list(told.values()) == pytest.approx(apart.tolist())
    cancelled = rows.set_index("reservation_id")["label"]
    assert all(one.cancelled == bool(cancelled[one.reservation_id]) for one in found.disagreements)


def test_the_other_way_round_the_gain_has_the_other_sign(ended: World) -> None:
    one, other = side_by_side(ended).found, side_by_side(ended, "2", "1").found
    assert other.gain.value == pytest.approx(-one.gain.value)
    assert (other.first, other.second) == (one.second, one.first)
    assert [d.reservation_id for d in other.disagreements] == [d.reservation_id for d in one.disagreements]


def test_fewer_days_are_the_last_ones(ended: World) -> None:
    found = side_by_side(ended, days=21).found
    assert LATER - timedelta(days=21) < found.matured_from
    assert found.bookings == len(cohort(ended, trained=LATER - timedelta(days=21))) < side_by_side(ended).found.bookings


def test_so_few_days_have_no_interval(ended: World) -> None:
    assert side_by_side(ended, days=14).found.gain.low is not None
    few = side_by_side(ended, days=13).found
    assert few.bookings > 100 and few.gain.low is few.gain.high is None


def corrected(world: World) -> None:
    """Every booking gets another price, after it was scored."""
    batches: list[SourceBatch] = list(simulator().batches())
    rows = pd.concat([batch.raw for batch in batches]).assign(price=1.0)
    assert world.ingest(until=SECOND, source=Table(rows, name=simulator().name)).updated > 1_000


def test_a_correction_after_the_score_changes_nothing(ended: World) -> None:
    before = side_by_side(ended).found
    corrected(ended)
    assert side_by_side(ended).found == before


def test_picture_and_figures_are_kept_beside_the_second_version(ended: World) -> None:
    compared = side_by_side(ended)
    run_id = ended.registry.record("2").run_id
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=compared.kept))
    assert compared.kept == f"comparisons/with-version-1-until-{compared.found.matured_until}"
    assert (folder / "comparison.png").read_bytes() == compared.picture
    assert compared.picture.startswith(b"\x89PNG")
    told = json.loads((folder / "comparison.json").read_text())
    assert told["bookings"] == compared.found.bookings
    assert told["gain"]["value"] == compared.found.gain.value
    assert told["second"]["trained_as_of"] == str(SECOND)


def test_of_what_a_stepwise_version_saw_the_beginning_nothing_is_compared(trained: World) -> None:
    policy = replace(POLICY, recipes=("mix/1",))
    assert trained.retrain(trained.request(MIDDLE), policy=policy).version == "2"
    trained.ingest(until=LATER, after=SECOND)
    # The last of these bookings were made on SECOND.
    found: SideBySide = side_by_side(trained, days=120).found
    rows = cohort(trained, trained=MIDDLE)
    made_since = rows["booked_on"] > pd.Timestamp(MIDDLE)
    assert found.second.labels.stepwise
    assert 0 < found.bookings == made_since.sum() < len(rows)
    assert found.left_out == len(cohort(trained, trained=LATER - timedelta(days=120))) - found.bookings
    with pytest.raises(NotEnoughData, match=r"version 2 learnt from bookings before they matured.*made after"):
        side_by_side(trained, as_of=MIDDLE + timedelta(days=1))


def test_too_few_bookings_are_a_sentence_that_says_what_to_do(ended: World) -> None:
    with pytest.raises(NotEnoughData, match=r"0 of them neither version can have learnt; 100 are needed") as error:
        side_by_side(ended, as_of=SECOND)
    assert f"version 2 as of {SECOND}" in str(error.value) and "--days" in str(error.value)


def test_a_version_is_compared_with_another_one_that_there_is(ended: World) -> None:
    with pytest.raises(BadInput, match="name two"):
        side_by_side(ended, "2", "2")
    with pytest.raises(BadInput, match="version 9"):
        side_by_side(ended, "1", "9")
