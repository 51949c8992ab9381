"""From bookings to a candidate: the backtest of the recipes that compete, and the fit of the one that is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain import labels
from cancellations.domain.card import CardFacts, matured_months
from cancellations.domain.evaluation import Cohort, Evaluation, Interval
from cancellations.domain.gate import GatePolicy, GateResult, backtest_start, gate
from cancellations.domain.promotion import TrialPolicy
from cancellations.domain.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from cancellations.domain.reservation import group_keys
from cancellations.domain.retraining import RetrainRequest
from cancellations.errors import NotEnoughData
from cancellations.ports import (
    Candidate,
    Classifier,
    Contestant,
    Evaluator,
    Pictures,
    Registry,
    Trainer,
    VersionRecord,
)


@dataclass(frozen=True)
class TrainingPolicy:
    """How a request is worked on; seeds make a version the same for the same data.

    `recipes`: names of those that compete, the one that is preferred first; `cookbook`: all that there are.
    """

    labels: labels.LabelRule
    gate: GatePolicy
    trial: TrialPolicy
    seed: int
    reference_rows: int
    lease_ttl: timedelta
    max_attempts: int
    recipes: tuple[str, ...] = (DEFAULT_RECIPE,)
    cookbook: Mapping[str, Recipe] = field(default_factory=lambda: RECIPES)


@dataclass(frozen=True)
class Tools:
    """What fits a model, what tells how good it is, and what draws it."""

    trainer: Trainer
    evaluator: Evaluator
    pictures: Pictures


def competing(policy: TrainingPolicy, champion: VersionRecord | None) -> dict[str, Recipe]:
    """The recipes that a retrain tries: those of the settings, and the champion's."""
    names = [*policy.recipes]
    if champion is not None and champion.recipe in policy.cookbook and champion.recipe not in names:
        names.append(champion.recipe)
    return {name: policy.cookbook[name] for name in names}


@dataclass(frozen=True)
class Bookings:
    """What a training looks at: bookings with what was known of them, and their features, row by row."""

    history: pd.DataFrame
    built: pd.DataFrame
    rule: labels.LabelRule

    def matured_by(self, day: date) -> np.ndarray:
        return (labels.maturity(self.history, self.rule) <= pd.Timestamp(day)).to_numpy()

    def label(self, as_of: date) -> np.ndarray:
        return labels.recorded_cancelled(self.history, as_of).astype("float64")

    def examples(self, recipe: Recipe, as_of: date) -> tuple[labels.Examples, ...]:
        return labels.examples(self.history, recipe.labels, self.rule, as_of, weighted=recipe.weighted)


@dataclass(frozen=True)
class Backtest:
    """What a backtest found: of all recipes, and of the chosen one on bookings that it was not fitted on.

    `cohort`: these bookings, `probability` the chosen recipe's; `champion` the figures of the champion there.
    """

    start: date
    result: GateResult
    contest: tuple[Contestant, ...]
    model: Classifier
    importance: dict[str, float]
    cohort: Cohort
    probability: np.ndarray
    base_rate: float
    evaluation: Evaluation
    champion: Evaluation | None

    @property
    def gain(self) -> Interval | None:
        """Log loss saved against the champion; None without one."""
        found = self.result.metrics
        if "backtest_gain" not in found:
            return None
        return Interval(*(found[f"backtest_gain{end}"] for end in ("", "_low", "_high")))


def run_backtest(
    bookings: Bookings,
    recipes: Mapping[str, Recipe],
    champion: VersionRecord | None,
    registry: Registry,
    tools: Tools,
    as_of: date,
    policy: TrainingPolicy,
    still_ours: Callable[[], None],
) -> Backtest:
    """Fits each recipe on what was known by the backtest's start, compares on what matured since."""
    start = backtest_start(as_of, champion.trained_as_of if champion else None, policy.gate)
    past = bookings.matured_by(start)
    test = bookings.matured_by(as_of) & ~past
    if champion is not None:
        test = test & champion.unseen(bookings.history, bookings.rule)
    base_rate = _require_enough(bookings, past, test, start, as_of, policy)
    truth = bookings.label(as_of)[test]
    matured_on = labels.maturity(bookings.history, bookings.rule)[test]
    built = bookings.built[test]
    models, probabilities = {}, {}
    for name, recipe in recipes.items():
        # Steps of bookings that are in the test would tell which of them cancelled early.
        examples = [made.excluding(test) for made in bookings.examples(recipe, start)]
        models[name] = tools.trainer.fit(bookings.built, examples, recipe, policy.seed)
        probabilities[name] = models[name].predict(built)
        still_ours()
    theirs = registry.load(champion.version).predict(built) if champion else None
    # The first of the settings, unless the champion's is one of them: whoever names others wants another.
    kept = champion is not None and champion.recipe in policy.recipes
    incumbent = champion.recipe if champion is not None and kept else policy.recipes[0]
    result = gate(
        truth,
        matured_on,
        base_rate,
        probabilities,
        incumbent,
        theirs,
        policy.gate,
        policy.seed,
    )
    rows = bookings.history[test]
    cohort = Cohort(truth, matured_on.to_numpy(), group_keys(rows), rows["market_segment"].to_numpy(dtype=object))
    probability = probabilities[result.chosen]

    def evaluated(predicted: np.ndarray) -> Evaluation:
        return tools.evaluator.evaluate(truth, predicted, cohort.groups, policy.seed)

    return Backtest(
        start=start,
        result=result,
        contest=tuple(
            Contestant(
                name,
                {**tools.trainer.parameters(recipe), **_described(recipe), "backtest_from": start.isoformat()},
                asdict(result.rated[name]),
            )
            for name, recipe in recipes.items()
        ),
        model=models[result.chosen],
        importance=tools.trainer.importance(models[result.chosen], built, truth, policy.seed),
        cohort=cohort,
        probability=probability,
        base_rate=base_rate,
        evaluation=evaluated(probability),
        champion=None if theirs is None else evaluated(theirs),
    )


def _require_enough(
    bookings: Bookings, past: np.ndarray, test: np.ndarray, start: date, as_of: date, policy: TrainingPolicy
) -> float:
    """Share of the training rows that was cancelled; raises `NotEnoughData` where a backtest would say nothing."""
    needed = policy.gate.min_rows
    if past.sum() < needed or test.sum() < needed:
        ripe = labels.maturity(bookings.history, bookings.rule)[past | test]
        last = "none has matured" if ripe.empty else f"the last one matured on {ripe.max():%Y-%m-%d}"
        raise NotEnoughData(
            f"{past.sum():,} bookings had matured by {start} to train on and {test.sum():,} between then and"
            f" {as_of} to test on; {needed:,} of each are needed and {last}. Load more history and outcomes, or"
            " choose the day with --as-of; a small hotel needs a longer test (CANCELLATIONS_GATE__BACKTEST_DAYS) or"
            " fewer rows (CANCELLATIONS_GATE__MIN_ROWS)"
        )
    label = bookings.label(start)[past]
    if label.min() == label.max():
        raise NotEnoughData(f"all {len(label):,} bookings that matured by {start} ended alike; are outcomes loaded?")
    return float(label.mean())


def make_candidate(
    request: RetrainRequest,
    bookings: Bookings,
    backtest: Backtest,
    recipes: Mapping[str, Recipe],
    tools: Tools,
    policy: TrainingPolicy,
    still_ours: Callable[[], None],
) -> Candidate:
    """The chosen recipe, fitted on everything that is known by the request's day."""
    rule, as_of = bookings.rule, request.as_of
    name = backtest.result.chosen
    recipe = recipes[name]
    model, training = fit_version(bookings, recipe, as_of, tools.trainer, policy.seed)
    still_ours()
    ripe = bookings.matured_by(as_of)
    label = bookings.label(as_of)
    told = {
        **tools.trainer.parameters(recipe),
        **_described(recipe),
        "recipe": name,
        "recipe_settings": json.dumps(recipe.settings()),
        "recipes_tried": ", ".join(recipes),
        "seed": policy.seed,
        "settle_days": rule.settle_days,
        "half_life_days": rule.half_life_days,
        "matures": rule.matures.value,
        "as_of": as_of.isoformat(),
        "backtest_from": backtest.start.isoformat(),
    }
    picture = tools.pictures.version(
        f"recipe {name}, backtest of {request.request_id}",
        backtest.cohort,
        backtest.probability,
        backtest.evaluation,
        backtest.base_rate,
        backtest.importance,
    )
    return Candidate(
        request_id=request.request_id,
        model=model,
        as_of=as_of,
        recipe=name,
        parameters=told,
        metrics={
            **backtest.evaluation.metrics("backtest_"),
            **backtest.result.metrics,
            "training_rows": float(len(training)),
            "matured_rows": float(ripe.sum()),
            "training_cancel_rate": float(label[ripe].mean()),
        },
        reasons=backtest.result.reasons,
        training=training,
        reference=_reference(bookings.built[ripe], label[ripe], policy),
        importance=backtest.importance,
        tags={"report_id": request.report_id or "", "replaces": request.champion or "", "reason": request.reason},
        contest=backtest.contest,
        backtest=backtest.model,
        card=_card(request, bookings, backtest, name, told),
        pictures={"backtest.png": picture},
    )


def _card(
    request: RetrainRequest, bookings: Bookings, backtest: Backtest, recipe: str, parameters: Mapping[str, Any]
) -> CardFacts:
    """What the version's card tells; the registry adds what it alone knows."""
    rule, as_of = bookings.rule, request.as_of
    ripe = bookings.matured_by(as_of)
    booked_on = bookings.history["booked_on"][ripe]
    label = bookings.label(as_of)[ripe]
    after = "arrival" if rule.matures is labels.Matures.ARRIVAL else "the scheduled check-out"
    return CardFacts(
        request_id=request.request_id,
        reason=request.reason,
        as_of=as_of,
        rows=int(ripe.sum()),
        cancel_rate=float(label.mean()),
        booked_from=booked_on.min().date(),
        booked_until=booked_on.max().date(),
        months=matured_months(labels.maturity(bookings.history, rule)[ripe], label),
        maturity=f"{rule.settle_days} day{'s' if rule.settle_days != 1 else ''} after {after}",
        recipe=recipe,
        parameters=parameters,
        backtest_from=backtest.start + timedelta(days=1),
        backtest_until=as_of,
        evaluation=backtest.evaluation,
        importance=backtest.importance,
        champion=request.champion,
        champion_evaluation=backtest.champion,
        gain=backtest.gain,
        gate=backtest.result.reasons,
    )


def fit_version(
    bookings: Bookings, recipe: Recipe, as_of: date, trainer: Trainer, seed: int
) -> tuple[Classifier, pd.DataFrame]:
    """A model of what a recipe learns from on a day, and the rows of it: all that is needed to fit it again."""
    examples = bookings.examples(recipe, as_of)
    model = trainer.fit(bookings.built, examples, recipe, seed)
    used = np.unique(np.concatenate([made.row for made in examples]))
    told = bookings.history[list(labels.TOLD)]
    ripe = bookings.matured_by(as_of)
    training = bookings.built.assign(
        **{name: told[name] for name in labels.TOLD},
        matured_on=labels.maturity(bookings.history, bookings.rule),
        label=np.where(ripe, bookings.label(as_of), np.nan),
    )
    # As text and not as objects: what a table holds is then told at once, without looking at each value.
    text = dict.fromkeys(training.select_dtypes(["object", "str"]).columns, "str")
    return model, training.iloc[used].reset_index(drop=True).astype(text)


def _described(recipe: Recipe) -> dict[str, Any]:
    """A recipe as parameters of a run."""
    told = recipe.settings()
    return {"labels": told["labels"], "weighted": told["weighted"], "without": ", ".join(told["without"])}


def _reference(built: pd.DataFrame, label: np.ndarray, policy: TrainingPolicy) -> pd.DataFrame:
    rows = min(policy.reference_rows, len(built))
    return built.assign(label=label).sample(rows, random_state=policy.seed).sort_index().reset_index(drop=True)
