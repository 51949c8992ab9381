"""Champions of the past, and what the monitor would have been shown of them, look by look.

Walking forward through a history: a champion learns what had matured by a day, and each look afterwards is shown
what was known on its own day, as `usecases.monitor.observe` shows it to the monitor of a house.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.in_flight import InFlightPolicy, in_flight
from cancellations.domain.labels import LabelRule, examples, made_days_ago, maturity, recorded_cancelled
from cancellations.domain.recipes import Recipe
from cancellations.domain.reference import ReferencePolicy
from cancellations.domain.reservation import group_keys
from cancellations.domain.volume import volume
from cancellations.ports import Classifier, Observation, Trainer

# Bookings on which a past champion's importance is measured, the last ones that it learned from.
ASKED_ROWS = 5_000
# Of samples of a reference.
SEED = 20


@dataclass(frozen=True)
class Market:
    """Bookings in order of booking and how each ended, and features as they were when it was made, row by row."""

    history: pd.DataFrame
    built: pd.DataFrame
    rule: LabelRule

    def rows(self, after: date, until: date) -> slice:
        """Places of the bookings made in `(after, until]`."""
        places = self.history["booked_on"].searchsorted([pd.Timestamp(after), pd.Timestamp(until)], side="right")
        return slice(int(places[0]), int(places[1]))


@dataclass(frozen=True)
class PastChampion:
    """Trained on what a market had shown by a day, with what a version keeps for the monitor."""

    trained: date
    model: Classifier
    reference: pd.DataFrame
    reference_probability: np.ndarray
    importance: Mapping[str, float]

    @classmethod
    def of(
        cls, market: Market, trained: date, trainer: Trainer, recipe: Recipe, seed: int, reference_rows: int
    ) -> PastChampion:
        made = examples(market.history, recipe.labels, market.rule, trained, weighted=recipe.weighted)
        model = trainer.fit(market.built, made, recipe, seed)
        told = made[0]
        last = np.argsort(market.history["arrival_on"].to_numpy()[told.row], kind="stable")[-ASKED_ROWS:]
        drawn = np.sort(np.random.default_rng(seed).permutation(told.row)[:reference_rows])
        reference = market.built.iloc[drawn]
        importance = trainer.importance(model, market.built.iloc[told.row[last]], told.label[last], seed)
        return cls(trained, model, reference, model.predict(reference), importance)


class Watched:
    """A market under a champion: what the monitor is shown on a day, up to and with `until`."""

    def __init__(
        self,
        market: Market,
        champion: PastChampion,
        until: date,
        window_days: int,
        open_bookings: InFlightPolicy,
        against: ReferencePolicy,
    ) -> None:
        self._market, self.champion = market, champion
        self._window_days, self._open_bookings, self._against = window_days, open_bookings, against
        self._probability = champion.model.predict(market.built.iloc[market.rows(date.min, until)])
        self._maturity = maturity(market.history, market.rule)
        self._daily = market.history.groupby("booked_on").size()

    def scores(self, end: date) -> np.ndarray:
        """The champion's scores of the bookings of a window, shape (rows,)."""
        return self.scores_between(self._before(end), end)

    def scores_between(self, after: date, until: date) -> np.ndarray:
        """The champion's scores of the bookings made in `(after, until]`, shape (rows,)."""
        return self._probability[self._market.rows(after, until)]

    def _before(self, end: date) -> date:
        """The day before a window's first."""
        return max(self.champion.trained, end - timedelta(days=self._window_days))

    def observe(self, end: date) -> Observation:
        market, trained, after = self._market, self.champion.trained, self._before(end)
        window, made = market.rows(after, end), market.rows(trained, end)
        known = self.known(market.history.iloc[: made.stop], end)
        known = known.assign(probability=self._probability[: made.stop])
        # Bookings that were open when it was trained have its scores too; of those in flight only later ones count.
        matured_on = self._maturity.iloc[: made.stop]
        final = known[((matured_on > pd.Timestamp(trained)) & (matured_on <= pd.Timestamp(end))).to_numpy()]
        start = after + timedelta(days=1)
        reference, reference_probability = self._reference(start, end)
        return Observation(
            champion=str(trained),
            start=start,
            end=end,
            reference=reference,
            current=market.built.iloc[window],
            probability=self._probability[window],
            matured_label=recorded_cancelled(final, end).astype(float),
            matured_probability=final["probability"].to_numpy(),
            matured_groups=group_keys(final),
            matured_made_days_ago=made_days_ago(final, end, trained),
            importance=self.champion.importance,
            reference_probability=reference_probability,
            in_flight=in_flight(known.iloc[made], known, market.rule, end, self._open_bookings),
            volume=volume(self._daily[: pd.Timestamp(end)], end),
            against=self._against.named(self._against.design),
        )

    def _reference(self, start: date, end: date) -> tuple[pd.DataFrame, np.ndarray]:
        span = self._against.span(self._against.design, start, end)
        if span is None:
            return self.champion.reference, self.champion.reference_probability
        made = self._market.rows(span[0] - timedelta(days=1), span[1])
        places = np.arange(made.start, made.stop)
        drawn = np.sort(np.random.default_rng(SEED).permutation(places)[: self._against.rows])
        return self._market.built.iloc[drawn], self._probability[drawn]

    def matured_since(self, end: date) -> int:
        """Outcomes that became final since the training: a retrain waits for enough of them."""
        after, until = pd.Timestamp(self.champion.trained), pd.Timestamp(end)
        return int(((self._maturity > after) & (self._maturity <= until)).sum())

    @staticmethod
    def known(history: pd.DataFrame, end: date) -> pd.DataFrame:
        """The bookings with what was known of their ends on a day."""
        later = history["known_on"] > pd.Timestamp(end)
        return history.assign(status=history["status"].mask(later), known_on=history["known_on"].mask(later))
