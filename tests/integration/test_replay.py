"""A replay knows nothing that a house would not have known, goes on where it stopped, and plays the house itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cancellations import settings as settings_module
from cancellations.bootstrap import App
from cancellations.domain.gate import GatePolicy
from cancellations.domain.labels import CANCELLED, maturity
from cancellations.domain.promotion import Change
from cancellations.domain.reservation import NAMES
from cancellations.domain.retraining import RetrainPolicy
from cancellations.errors import BadInput
from cancellations.replay.competitors import Fit, competitors
from cancellations.replay.composed import compose, served_versions
from cancellations.replay.figures import Blocks, Window
from cancellations.replay.grid import Grid
from cancellations.replay.immediate import (
    MONTHLY,
    Entry,
    by_chance,
    play,
    recalibrated,
    reliability,
    report,
    stitched,
    weekly_losses,
)
from cancellations.replay.policies import Calendar, OwnGate, Span
from cancellations.replay.session import Order, default_span, policies, replay
from cancellations.replay.world import World, build_world
from cancellations.settings import Settings
from cancellations.sources.simulator import Drift, DriftKind, simulate
from deployments.cli import app as command_line

START, DAYS = date(2016, 1, 4), 119
SPAN = Span(START + timedelta(days=77), START + timedelta(days=112))
# Online guests cancel far more from the second week of the span on.
TURN = SPAN.first + timedelta(days=7)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return settings_module.load(
        gate=GatePolicy(backtest_days=14, min_rows=300), monitor={"min_matured_rows": 300, "sample_rows": 500}
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "bookings.parquet"
    made = simulate(START, DAYS, seed=11, drifts=[Drift(DriftKind.FREE_CANCELLATION, TURN, 6.0)])
    made.drop(columns=["true_probability", "group_size"]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def folder(table: Path) -> Path:
    return table.parent / "kept"


@pytest.fixture(scope="module")
def world(table: Path, folder: Path, settings: Settings) -> World:
    return build_world(str(table), settings, folder, say=lambda text: None)


@dataclass(frozen=True)
class Dated:
    """Its probability tells the day that it was fitted on; its figure, that of a gate, grows with every second look."""

    name: str = "dated"

    def fit(self, world: World, as_of: date, rows: slice, seed: int, *, watched: bool = False) -> Fit:
        weeks = (as_of - SPAN.first).days / 7
        return Fit(np.full(rows.stop - rows.start, (1 + weeks) / 100), own_figure=1.0 + 0.1 * (weeks // 2))


def grid_of(world: World, folder: Path) -> Grid:
    return Grid(world, folder, seed=20, workers=1)


def test_a_world_is_loaded_once_and_is_not_mistaken_for_another(table: Path, folder: Path, world: World) -> None:
    again = build_world(str(table), settings_module.load(), folder, say=lambda text: pytest.fail(text))
    assert again.digest == world.digest
    pd.testing.assert_frame_equal(again.built, world.built)
    other = table.with_name("others.parquet")
    pd.read_parquet(table).iloc[::2].to_parquet(other)
    with pytest.raises(BadInput, match="holds a replay of other bookings"):
        build_world(str(other), settings_module.load(), folder)


def test_a_folder_of_other_bookings_of_the_same_file_is_refused(table: Path, folder: Path, world: World) -> None:
    for limit in ({"max_lead_days": 30}, {"booked_from": SPAN.first}, {"booked_until": SPAN.first}):
        with pytest.raises(BadInput, match="by another mapping, label rule or selection"):
            build_world(str(table), settings_module.load(**limit), folder)
    mapping = table.with_name("other.toml")
    columns = [name for name in NAMES if name != "price"]
    told = [f'{name} = "{name}"' for name in columns]
    ends = ["[outcome]", 'status = "status"', 'known_on = "known_on"']
    mapping.write_text("\n".join(["format = 1", "[reservation]", *told, *ends]))
    with pytest.raises(BadInput, match="by another mapping"):
        build_world(str(table), settings_module.load(), folder, mapping)


def test_bookings_that_had_not_matured_when_the_table_was_written_count_nowhere(world: World, folder: Path) -> None:
    """Of those that lie ahead only the cancelled have an outcome; taken for kept they would praise low scores."""
    written = SPAN.until
    ahead = (world.history["known_on"] > pd.Timestamp(written)).to_numpy()
    open_ones = world.history.assign(
        status=world.history["status"].mask(ahead), known_on=world.history["known_on"].mask(ahead)
    )
    live = replace(world, history=open_ones)
    # The same where no cancellation has a day: those that lie ahead count from their maturity on, after the table.
    gone = live.history["status"].isin(CANCELLED)
    undated = live.history.assign(known_on=live.history["known_on"].mask(gone, maturity(live.history, world.rule)))
    assert replace(live, history=undated).known_until == live.known_until <= written
    assert world.final(SPAN.first, SPAN.until).all()
    final = live.final(SPAN.first, SPAN.until)
    assert 0 < final.sum() < len(final)
    np.testing.assert_array_equal(live.ended(SPAN.first, SPAN.until)[final], world.ended(SPAN.first, SPAN.until)[final])
    grid, yardstick = grid_of(world, folder), competitors()["matured/1"]
    grid.make([grid.task(yardstick, day, SPAN.until) for day in (SPAN.first, *SPAN.looks)])
    window = Window("all", SPAN.first, SPAN.until)
    played = play(live, grid, SPAN, Entry(yardstick, Calendar("static", 0)), None, 20)
    (row,) = report(live, grid, SPAN, [played], yardstick, [window], 20, random_timings=0)
    assert row.bookings == final.sum()
    assert row.loss.value == pytest.approx(played.loss[final].mean())
    weekly = weekly_losses(live, SPAN, [played])
    first_week = live.history["booked_on"].iloc[live.rows(SPAN.first, SPAN.until)] < weekly.index[0] + pd.Timedelta(
        "7D"
    )
    assert weekly.iloc[0, 0] == pytest.approx(played.loss[final & first_week.to_numpy()].mean())


def test_every_booking_is_scored_by_the_last_training_before_its_day(world: World, folder: Path) -> None:
    grid, competitor = grid_of(world, folder), Dated()
    grid.make([grid.task(competitor, day, SPAN.until) for day in (SPAN.first, *SPAN.looks)])
    days = (SPAN.first, SPAN.looks[0], SPAN.looks[2])
    probability = stitched(world, grid, SPAN, competitor, days)
    booked_on = world.history["booked_on"].iloc[world.rows(SPAN.first, SPAN.until)].dt.date
    expected = [(1 + (max(d for d in days if d < made) - SPAN.first).days / 7) / 100 for made in booked_on]
    np.testing.assert_allclose(probability, expected)


def test_a_gate_of_ones_own_lets_only_what_beats_it_serve(world: World, folder: Path) -> None:
    grid, competitor = grid_of(world, folder), Dated()
    grid.make([grid.task(competitor, day, SPAN.until) for day in (SPAN.first, *SPAN.looks)])
    played = play(world, grid, SPAN, Entry(competitor, OwnGate("gate", 1, 0.05)), None, 20)
    assert played.days == (SPAN.first, SPAN.looks[1], SPAN.looks[3])


PUBLIC = {
    "lead_time": "60", "arrival_date_year": "2016", "arrival_date_week_number": "20", "arrival_date_day_of_month": "3",
    "stays_in_weekend_nights": "1", "stays_in_week_nights": "2", "is_repeated_guest": "0", "country": "PRT",
    "previous_bookings_not_canceled": "0", "days_in_waiting_list": "0", "adr": "90", "assigned_room_type": "A",
    "required_car_parking_spaces": "0", "total_of_special_requests": "1", "arrival_date_month": "May",
    "reserved_room_type": "A", "booking_changes": "0",
}  # fmt: skip


@pytest.mark.parametrize("name", ["matured/1", "hazard/1", "mix/1", "label known", "article"])
def test_nothing_that_became_known_later_moves_a_fit(name: str, world: World) -> None:
    as_of = SPAN.first
    raw = world.raw.assign(**{**PUBLIC, "adr": world.history["price"].astype("str")})
    later = (world.history["known_on"] > pd.Timestamp(as_of)).to_numpy()
    turned = np.where(world.history["status"].isin(CANCELLED), "stayed", "canceled")
    history = world.history.assign(
        status=world.history["status"].where(~later, turned),
        known_on=world.history["known_on"].where(~later, world.history["known_on"] + pd.Timedelta(days=9)),
    )
    competitor, rows = competitors()[name], world.rows(as_of, as_of + timedelta(days=7))
    told = competitor.fit(replace(world, raw=raw), as_of, rows, 20).probability
    assert len(np.unique(told)) > 20
    np.testing.assert_array_equal(
        competitor.fit(replace(world, raw=raw, history=history), as_of, rows, 20).probability, told
    )


def test_a_replay_goes_on_where_it_was_stopped(world: World, folder: Path) -> None:
    grid, competitor = grid_of(world, folder), competitors()["matured/1"]
    tasks = [grid.task(competitor, day, SPAN.until) for day in (SPAN.first, SPAN.looks[0])]
    grid.make(tasks)
    first, second = (task.place(folder) for task in tasks)
    kept = first.stat().st_mtime_ns, np.load(second)["probability"]
    second.unlink()
    grid_of(world, folder).make(tasks)
    assert first.stat().st_mtime_ns == kept[0]
    np.testing.assert_array_equal(np.load(second)["probability"], kept[1])


def test_chance_is_told_by_the_same_losses_that_a_policy_has(world: World, folder: Path) -> None:
    """With all looks but one to choose from, the mean of all timings can be counted out by hand."""
    grid, competitor = grid_of(world, folder), Dated()
    looks = SPAN.looks
    grid.make([grid.task(competitor, day, SPAN.until) for day in (SPAN.first, *looks)])
    booked_on = world.history["booked_on"].iloc[world.rows(SPAN.first, SPAN.until)].reset_index(drop=True)
    blocks = Blocks.of(booked_on, Window("all", SPAN.first, SPAN.until), 20)
    one = play(world, grid, SPAN, Entry(competitor, Calendar("every", 1)), None, 20)
    chance = by_chance(world, grid, SPAN, replace(one, days=one.days[:-1]), blocks, 300, 20)
    every = []
    for left_out in looks:
        days = (SPAN.first, *(day for day in looks if day != left_out))
        every.append(_loss(world, stitched(world, grid, SPAN, competitor, days)))
    assert set(np.round(chance, 9)) == set(np.round(every, 9))


def _loss(world: World, probability: np.ndarray) -> float:
    label = world.ended(SPAN.first, SPAN.until)
    return float(-np.log(np.where(label == 1, probability, 1 - probability)).mean())


def test_a_weekly_retrain_of_the_yardstick_has_all_of_its_gain(world: World, folder: Path) -> None:
    grid, yardstick = grid_of(world, folder), competitors()["matured/1"]
    grid.make([grid.task(yardstick, day, SPAN.until) for day in (SPAN.first, *SPAN.looks)])
    entries = [Entry(yardstick, Calendar("static", 0)), Entry(yardstick, Calendar("weekly", 1))]
    played = [play(world, grid, SPAN, entry, None, 20) for entry in entries]
    window = Window("all", SPAN.first, SPAN.until)
    static, weekly = report(world, grid, SPAN, played, yardstick, [window], 20, random_timings=20)
    assert (static.retrains, weekly.retrains) == (0, len(SPAN.looks))
    assert static.gain.value == 0
    assert weekly.share is not None
    assert weekly.share.value == pytest.approx(1)
    assert weekly.versus_weekly.value == 0
    assert weekly.versus_monthly is None


def test_a_policy_is_told_beside_the_same_recipe_retrained_monthly(world: World, folder: Path) -> None:
    grid, yardstick, other = grid_of(world, folder), competitors()["matured/1"], Dated()
    for competitor in (yardstick, other):
        grid.make([grid.task(competitor, day, SPAN.until) for day in (SPAN.first, *SPAN.looks)])
    entries = [
        Entry(competitor, policy)
        for competitor in (yardstick, other)
        for policy in (Calendar("static", 0), Calendar(MONTHLY, 1))
    ]
    played = [play(world, grid, SPAN, entry, None, 20) for entry in entries]
    window = Window("all", SPAN.first, SPAN.until)
    rows = report(world, grid, SPAN, played, yardstick, [window], 20, random_timings=0)
    for kept, retrained in (rows[:2], rows[2:]):
        assert kept.versus_monthly is not None
        assert kept.versus_monthly.value == pytest.approx(kept.loss.value - retrained.loss.value)
        assert retrained.versus_monthly is not None
        assert retrained.versus_monthly.value == 0


def test_reliability_is_told_by_tenths_of_what_each_entry_says(world: World, folder: Path) -> None:
    grid, yardstick = grid_of(world, folder), competitors()["matured/1"]
    grid.make([grid.task(yardstick, SPAN.first, SPAN.until)])
    one = play(world, grid, SPAN, Entry(yardstick, Calendar("static", 0)), None, 20)
    told = reliability(world, SPAN, [one])
    final, label = world.final(SPAN.first, SPAN.until), world.ended(SPAN.first, SPAN.until)
    assert len(told) == 10
    assert told["bookings"].sum() == final.sum()
    assert told["said"].is_monotonic_increasing
    weighted = (told["cancelled"] * told["bookings"]).sum() / told["bookings"].sum()
    assert weighted == pytest.approx(label[final].mean())


def test_a_daily_shift_follows_guests_who_cancel_more_before_their_outcomes_are_final(
    world: World, folder: Path
) -> None:
    grid, competitor = grid_of(world, folder), competitors()["matured/1"]
    grid.make([grid.task(competitor, SPAN.first, SPAN.until)])
    frozen = stitched(world, grid, SPAN, competitor, (SPAN.first,))
    shifted = recalibrated(world, SPAN, (SPAN.first,), frozen)
    assert shifted[-500:].mean() > frozen[-500:].mean() + 0.03
    assert _loss(world, shifted) < _loss(world, frozen) - 0.005


def test_the_whole_house_is_played_and_goes_on_where_its_home_stands(
    world: World, folder: Path, settings: Settings
) -> None:
    eager = RetrainPolicy(evidence_needed=1e9, calendar_floor_days=7, cooldown_days=0, budget=99, min_new_labels=0)
    played: list[date] = []
    short = replace(SPAN, until=SPAN.first + timedelta(days=4))
    part = compose(world, short, "eager", eager, settings, folder, on_day=played.append)
    assert played == [SPAN.first + timedelta(days=n) for n in range(1, 5)]
    assert [row.change for row in part.ledger] == [Change.FIRST]
    played.clear()
    span = replace(SPAN, until=SPAN.first + timedelta(days=10))
    whole = compose(world, span, "eager", eager, settings, folder, on_day=played.append)
    assert played[-1] == span.until
    assert len(played) <= 7
    assert whole.requests == 2
    assert [row.change for row in whole.ledger] == [Change.FIRST, Change.CHALLENGED]
    bookings = world.history.iloc[world.rows(span.first, span.until)]
    served = served_versions(bookings, list(whole.ledger), list(whole.trials))
    on_trial = (bookings["booked_on"] > pd.Timestamp(whole.ledger[1].as_of)).to_numpy()
    assert set(served[~on_trial]) == {"1"}
    assert set(served[on_trial]) == {"1", "2"}
    np.testing.assert_array_equal(whole.probability[: len(part.probability)], part.probability)
    (home,) = (folder / "homes").glob(f"eager-*-{SPAN.first}-*")
    for asked, told in (("history", "gain of version 2"), ("explain", "version 2")):
        shown = CliRunner().invoke(command_line, [asked, "--home", str(home)])
        assert shown.exit_code == 0, shown.output
        assert told in shown.output.lower()
    with pytest.raises(BadInput, match=r"was played until \S+, beyond"):
        compose(world, short, "eager", eager, settings, folder)
    with pytest.raises(BadInput, match="other settings of gate"):
        compose(world, span, "eager", eager, settings.model_copy(update={"gate": GatePolicy(max_bias=0.5)}), folder)


def test_the_seed_of_a_replay_is_that_of_its_houses(
    table: Path, folder: Path, world: World, settings: Settings
) -> None:
    order = Order(replace(SPAN, until=SPAN.first + timedelta(days=2)), (), composed=("ours",), seed=7, workers=1)
    replay(str(table), replace(order, random_timings=0), settings, folder)
    (home,) = (folder / "homes").glob("ours-*-seed7")
    assert App(settings.model_copy(update={"home": home})).registry.parameters("1")["seed"] == "7"


def test_policies_that_watch_are_replayed_by_the_same_decision_as_in_production(
    table: Path, folder: Path, world: World, settings: Settings
) -> None:
    order = Order(SPAN, (("ours", "matured/1"), ("realised loss alone", "matured/1")), workers=1, random_timings=10)
    found = replay(str(table), order, settings, folder)
    ours = found.days["ours, matured/1"]
    # The change is found by the loss, and nothing else is there to find before it.
    assert len(ours) == 2
    assert ours[1] > TURN
    assert found.days["realised loss alone, matured/1"][1] > TURN
    assert set(found.signals) == set(SPAN.looks)
    # What was measured by other thresholds is no answer.
    deaf = settings.model_copy(update={"monitor": settings.monitor.model_copy(update={"excess_loss": 9.0})})
    alone = replay(str(table), replace(order, entries=order.entries[1:]), deaf, folder)
    assert len(alone.days["realised loss alone, matured/1"]) == 1
    assert set(alone.signals) == set(SPAN.looks)


def test_what_a_replay_does_not_know_it_says(table: Path, folder: Path, world: World, settings: Settings) -> None:
    with pytest.raises(BadInput, match="there is no policy 'yearly'; there are"):
        replay(str(table), Order(SPAN, (("yearly", "matured/1"),)), settings, folder)
    with pytest.raises(BadInput, match="no recipe or pipeline 'magic'"):
        replay(str(table), Order(SPAN, (("static", "magic"),)), settings, folder)
    with pytest.raises(BadInput, match="bookings were made from 2016-01-04"):
        replay(str(table), Order(Span(date(2010, 1, 1), SPAN.until), (("static", "matured/1"),)), settings, folder)
    with pytest.raises(BadInput, match="before there were 26 weeks of them to learn from"):
        default_span(str(table), None, None, settings, None, folder, lambda text: None)
    assert "ours" in policies(settings)


def test_the_command_prints_a_table_and_writes_table_facts_and_picture(table: Path, folder: Path, world: World) -> None:
    asked = ["replay", str(table), "--folder", str(folder), "--from", str(SPAN.first), "--to", str(SPAN.until)]
    asked += ["--policy", "static", "--policy", "weekly", "--workers", "1", "--random", "10"]
    told = CliRunner().invoke(command_line, asked)
    assert told.exit_code == 0, told.output
    assert "weekly, matured/1" in told.output
    facts = json.loads((folder / "replay.json").read_text())
    assert [row["retrains"] for row in facts["rows"]] == [0, len(SPAN.looks)]
    assert len(pd.read_csv(folder / "replay.csv")) == 2
    assert (folder / "replay.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(autouse=True)
def _no_house_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CANCELLATIONS_HOME", str(tmp_path))
    yield
