"""Versions to compare: sound ones, trained on wrong labels, and scoring by wrong features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from cancellations.bootstrap import trainer
from cancellations.domain.labels import CANCELLED, Examples, examples, maturity, recorded_cancelled
from cancellations.domain.recipes import DEFAULT_RECIPE, RECIPES
from cancellations.usecases.walk_forward import Market

RECIPE = RECIPES[DEFAULT_RECIPE]
# Guards hold first scores against those of bookings made in the weeks before.
LATELY_DAYS = 112
# What the record of an agent or a company says where nobody has one: the overall rate.
OVERALL_RATE = 0.37


@dataclass(frozen=True)
class Version:
    """One that was trained on what had matured by a day, or as its fault has it; None: a sound one."""

    trained: date
    fault: str | None = None


def sound_examples(market: Market, trained: date) -> Examples:
    """What had matured by a day."""
    return examples(market.history, RECIPE.labels, market.rule, trained, weighted=RECIPE.weighted)[0]


def _sound(market: Market, trained: date, seed: int) -> Examples:
    return sound_examples(market, trained)


def _flipped(share: float) -> Callable[[Market, date, int], Examples]:
    """The labels of a share of the bookings are turned round."""

    def made(market: Market, trained: date, seed: int) -> Examples:
        sound = _sound(market, trained, seed)
        turned = np.random.default_rng([seed, trained.toordinal()]).random(len(sound)) < share
        return Examples(sound.row, np.where(turned, 1 - sound.label, sound.label), sound.weight)

    return made


def _label_known(market: Market, trained: date, seed: int) -> Examples:
    """Every booking with an outcome on record, as most pipelines take them: who cancels is known early."""
    row = np.flatnonzero((market.history["known_on"] <= pd.Timestamp(trained)).to_numpy())
    label = market.history["status"].iloc[row].isin(CANCELLED).to_numpy(dtype=float)
    return Examples(row, label, np.ones(len(row)))


def _pending_as_kept(market: Market, trained: date, seed: int) -> Examples:
    """Every booking; those without a cancellation on record count as kept."""
    row = np.flatnonzero((market.history["booked_on"] <= pd.Timestamp(trained)).to_numpy())
    label = recorded_cancelled(market.history, trained)[row].astype(float)
    return Examples(row, label, np.ones(len(row)))


# What a version is trained on, by fault.
TRAINING: Mapping[str | None, Callable[[Market, date, int], Examples]] = {
    None: _sound,
    "labels flipped, 10 %": _flipped(0.1),
    "labels flipped, 20 %": _flipped(0.2),
    "labels known so far": _label_known,
    "pending as kept": _pending_as_kept,
}
TRAINING_FAULTS: tuple[str, ...] = tuple(fault for fault in TRAINING if fault is not None)


def _no_records(features: pd.DataFrame) -> pd.DataFrame:
    rates = {
        name: features[name].where(features[name].isna(), OVERALL_RATE)
        for name in ("agent_cancel_rate", "company_cancel_rate")
    }
    return features.assign(agent_bookings=0.0, **rates)


def _dealt_out(features: pd.DataFrame) -> pd.DataFrame:
    """Rows out of step with the bookings that they belong to."""
    order = np.random.default_rng(len(features)).permutation(len(features))
    return features.iloc[order].set_axis(features.index)


DEALT_OUT = "scores of other bookings"
# What a version is shown when it scores, by fault.
SERVING: Mapping[str | None, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "lead time 0": lambda f: f.assign(lead_days=0.0),
    "records of agents and companies empty": _no_records,
    "deposit type constant": lambda f: f.assign(deposit_type="No Deposit"),
    "price × 100": lambda f: f.assign(price=f["price"] * 100, relative_price=f["relative_price"] + np.log(100)),
    "books empty": lambda f: f.assign(on_the_books=0.0),
    DEALT_OUT: _dealt_out,
}
SERVING_FAULTS: tuple[str, ...] = tuple(fault for fault in SERVING if fault is not None)
# What a feed can do to all versions alike.
FEED_FAULTS: tuple[str, ...] = tuple(fault for fault in SERVING_FAULTS if fault != DEALT_OUT)


def probabilities(market: Market, versions: Sequence[Version], seed: int) -> dict[Version, np.ndarray]:
    """What versions say of the bookings that had not matured when they were trained, of those made lately before, and
    of those that a sound one was trained on; NaN of the others."""
    matured_on = maturity(market.history, market.rule)
    found = {}
    for trained, training in dict.fromkeys((v.trained, _training(v)) for v in versions):
        model = trainer().fit(market.built, [TRAINING[training](market, trained, seed)], RECIPE, seed)
        lately = market.history["booked_on"] > pd.Timestamp(trained) - pd.Timedelta(days=LATELY_DAYS)
        asked = ((matured_on > pd.Timestamp(trained)) | lately).to_numpy(copy=True)
        asked[sound_examples(market, trained).row] = True
        features = market.built[asked]
        for version in versions:
            if (version.trained, _training(version)) == (trained, training):
                shown = SERVING[version.fault](features) if version.fault in SERVING else features
                probability = np.full(len(asked), np.nan)
                probability[asked] = model.predict(shown)
                found[version] = probability
    return found


def _training(version: Version) -> str | None:
    """A version that scores by wrong features was trained well."""
    return version.fault if version.fault in TRAINING else None
