"""What a look costs: all of the monitor's signals beside Evidently's preset alone, on the same bookings in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.figures import Figure, peak_memory
from cancellations.domain.features import CATEGORICAL, NUMERIC, build, past_of
from cancellations.domain.in_flight import in_flight
from cancellations.domain.labels import LabelRule, made_days_ago, matured, recorded_cancelled
from cancellations.domain.reservation import group_keys
from cancellations.domain.volume import volume
from cancellations.ports import Observation
from cancellations.replay.workers import workers
from cancellations.settings import MonitorSettings
from cancellations.sources.simulator import simulate
from monitoring.columns import clean
from monitoring.report import EvidentlyMonitor

BEGINS, DAYS = date(2015, 1, 5), 84
WINDOW_DAYS = 28
# Bookings of two simulated hotels in four weeks, roughly; a market is made of more hotels to have more.
BOOKINGS = 4_500
REFERENCE = 10_000
# Of current bookings: how often measured, and what share of the preset's time all signals may take.
SIZES = {10_000: (5, 1.0), 1_000_000: (2, 0.3)}
QUICK = {10_000: (2, 1.0)}
REACH_MEMORY = 500.0


@dataclass(frozen=True)
class Looked:
    """Seconds of all signals and of the preset, in turns; MiB beyond the data that each held at most."""

    ours: list[float]
    preset: list[float]
    our_memory: float | None
    preset_memory: float | None


def speed(seed: int, *, quick: bool) -> Iterator[Figure]:
    """Ratios of times and the memory of a look, each size in a process of its own."""
    for rows, (repetitions, at_most) in (QUICK if quick else SIZES).items():
        with workers(1, threadpool_limits, 1) as pool:
            found = pool.submit(looked, rows, repetitions, seed).result()
        name = f"{REFERENCE:,} x {rows:,}, {len(NUMERIC) + len(CATEGORICAL)} columns"
        ratios = [ours / preset for ours, preset in zip(found.ours, found.preset, strict=True)]
        yield Figure.of(f"{name}: all signals", ratios, "of DataDriftPreset's time", at_most=at_most)
        yield Figure.of(f"{name}: all signals, alone", found.ours, "s")
        yield Figure.of(f"{name}: DataDriftPreset, alone", found.preset, "s")
        if found.our_memory is not None and found.preset_memory is not None:
            yield Figure.of(
                f"{name}: memory of all signals", [found.our_memory], "MiB beyond the data", at_most=REACH_MEMORY
            )
            yield Figure.of(f"{name}: memory of DataDriftPreset", [found.preset_memory], "MiB beyond the data")


def looked(rows: int, repetitions: int, seed: int) -> Looked:
    """Looks at a window of so many bookings, in turns with the preset; memory is that of the first turn of each."""
    ours, preset = _turns(rows, seed)
    # Whatever is loaded once a process, on the fewest bookings.
    for turn in _turns(min(SIZES), seed):
        turn()
    times: tuple[list[float], list[float]] = ([], [])
    memory: list[float | None] = []
    for repetition in range(repetitions):
        for turn, spent in zip((ours, preset), times, strict=True):
            before = _forget_peak() if repetition == 0 else None
            began = time.perf_counter()
            turn()
            spent.append(time.perf_counter() - began)
            if repetition == 0:
                peak = peak_memory()
                memory.append(None if before is None or peak is None else max(0.0, peak - before))
    return Looked(*times, *memory)


def _turns(rows: int, seed: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """All signals of a window of so many bookings, open ones and volume included; and the preset on its columns."""
    rule, chance = LabelRule(), np.random.default_rng(seed)
    table = simulate(BEGINS, DAYS, seed, scale=1.2 * rows / BOOKINGS).sort_values("booked_on", ignore_index=True)
    features = build(table, past_of(table), rule)
    end = BEGINS + timedelta(days=DAYS - 1)
    window = np.flatnonzero((table["booked_on"] > pd.Timestamp(end - timedelta(days=WINDOW_DAYS))).to_numpy())[-rows:]
    if len(window) < rows:
        raise AssertionError(f"the market has {len(window):,} bookings in its last four weeks, {rows:,} are needed")
    earlier = np.sort(chance.choice(window[0], REFERENCE, replace=False))
    reference, current = features.iloc[earlier].copy(), features.iloc[window].copy()
    made = table.iloc[window].assign(probability=chance.beta(2, 3, rows))
    later = made["known_on"] > pd.Timestamp(end)
    made = made.assign(status=made["status"].mask(later), known_on=made["known_on"].mask(later))
    final = matured(made, rule, end)
    scores = chance.beta(2, 3, REFERENCE)
    daily = table.groupby("booked_on").size()
    settings = MonitorSettings(sample_rows=REFERENCE)
    monitor = EvidentlyMonitor(settings)
    del table, features

    def ours() -> object:
        return monitor.measure(
            Observation(
                champion="1",
                start=end - timedelta(days=WINDOW_DAYS - 1),
                end=end,
                reference=reference,
                current=current,
                probability=made["probability"].to_numpy(),
                matured_label=recorded_cancelled(final, end).astype(float),
                matured_probability=final["probability"].to_numpy(),
                matured_groups=group_keys(final),
                matured_made_days_ago=made_days_ago(final, end, BEGINS),
                importance=dict.fromkeys(reference.columns, 1 / reference.shape[1]),
                reference_probability=scores,
                in_flight=in_flight(made, made, rule, end, settings.open_bookings),
                volume=volume(daily, end),
            )
        )

    before, after = clean(reference), clean(current)

    def preset() -> object:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        kinds = DataDefinition(numerical_columns=list(NUMERIC), categorical_columns=list(CATEGORICAL))
        sides = (Dataset.from_pandas(side, data_definition=kinds) for side in (after, before))
        return Report([DataDriftPreset()]).run(*sides)

    return ours, preset


def _forget_peak() -> float | None:
    """Lets the system count the process's peak of memory anew; MiB held now, None where it does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return peak_memory()
