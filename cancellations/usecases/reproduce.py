"""Makes a version again from what it left on record, and holds the two against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from cancellations.domain import labels
from cancellations.domain.recipes import ESTIMATOR, Recipe, recipe_from
from cancellations.errors import BadInput, Refused
from cancellations.ports import Registry, Trainer

# What a training file holds beside features.
BESIDE = (*labels.TOLD, "matured_on", "label")


@dataclass(frozen=True)
class Differs:
    """Something that is not now as it was then; None where it was, or is, not there."""

    name: str
    then: str | None
    now: str | None


@dataclass(frozen=True)
class Reproduction:
    """A version and the model that was fitted again beside it.

    `rows`: training bookings; `compared`: rows on which both gave probabilities, the reference sample's
    among them; `digest` is that of the training data as they are now, `registered_digest` of then;
    `code`, `packages` and `settings` tell what is not as it was: source of this package (None when it is
    the same), installed packages, and settings of the estimator that the version's own had to replace.
    `largest_difference`: of two probabilities of the same row.
    """

    version: str
    recipe: str
    as_of: date
    seed: int
    rows: int
    compared: int
    digest: str
    registered_digest: str
    code: Differs | None
    packages: tuple[Differs, ...]
    settings: tuple[Differs, ...]
    largest_difference: float

    @property
    def digest_matches(self) -> bool:
        return self.digest == self.registered_digest

    @property
    def equal(self) -> bool:
        """Whether the same data gave the same probabilities, to the last digit."""
        return self.digest_matches and self.largest_difference == 0

    @property
    def verdict(self) -> str:
        """The whole in one sentence."""
        if not self.digest_matches:
            return (
                f"version {self.version} cannot be made again: its training data have digest {self.digest} and"
                f" {self.registered_digest} was registered, so data/training.parquet of its run was changed since;"
                f" fitted on what is there now, probabilities differ by up to {self.largest_difference:.3g}"
            )
        if self.equal:
            return (
                f"version {self.version} is reproduced: fitted again it gives the same probability for each of"
                f" {self.compared:,} rows"
            )
        return (
            f"version {self.version} is not reproduced: fitted again from the same data it differs by up to"
            f" {self.largest_difference:.3g} in probability on {self.compared:,} rows; {self._suspect()}"
        )

    def _suspect(self) -> str:
        if self.code is None and not self.packages:
            return (
                "code and packages are those that it was made with, so look at what else could be another: the"
                " parameters of its run, its artifact, the machine"
            )
        others = [f"{len(self.packages)} packages"] if self.packages else []
        changed = " and ".join((["the code"] if self.code is not None else []) + others)
        return f"{changed} changed since; install what its run keeps in environment.txt and try again"


@dataclass(frozen=True)
class _Made:
    """How a version was made, by the parameters of its run."""

    name: str
    recipe: Recipe
    rule: labels.LabelRule
    as_of: date
    seed: int


def reproduce(version: str, *, registry: Registry, trainer: Trainer) -> Reproduction:
    """Fits a version again from its own training data, recipe, label rule, day and seed.

    Settings of the estimator are those that the version was fitted with, whatever the code's are today. A
    recalibrated version is its base, made again, with the shift that is on record.
    Raises `Refused` for a version that was made by no recipe, `BadInput` for one that is not there.
    """
    told = registry.parameters(version)
    made = _made(version, told)
    now = trainer.parameters(made.recipe)
    if (then := told.get("estimator")) != now["estimator"]:
        raise Refused(
            f"version {version} was fitted by estimator {then}, and this code fits {now['estimator']}; install the"
            f" code that made it ({told.get('code_version', 'not on record')})"
        )
    record = registry.record(version)
    training = registry.training(version)
    missing = [name for name in labels.TOLD if name not in training]
    if missing:
        raise Refused(
            f"the training data of version {version} lack {', '.join(missing)}, from which labels are made; it was"
            " registered by an older version of this package"
        )
    fitted = replace(made.recipe, estimator={name: float(told[name]) for name in ESTIMATOR if name in told})
    features = training.drop(columns=[name for name in BESIDE if name in training])
    examples = labels.examples(training, fitted.labels, made.rule, made.as_of, weighted=fitted.weighted)
    again = trainer.fit(features, examples, fitted, made.seed)
    if "shift" in told:
        again = trainer.shifted(again, float(told["shift"]))
    registered = registry.load(version, fresh=True)
    reference = registry.reference(version)
    apart = [np.abs(again.predict(rows) - registered.predict(rows)) for rows in (features, reference)]
    made_with, with_now = registry.environment(version), registry.environment()
    return Reproduction(
        version=version,
        recipe=made.name,
        as_of=made.as_of,
        seed=made.seed,
        rows=len(training),
        compared=len(features) + len(reference),
        digest=registry.digest(training),
        registered_digest=record.data_digest,
        code=None if made_with.code == with_now.code else Differs("code", made_with.code or None, with_now.code),
        packages=_differences(made_with.packages, with_now.packages),
        settings=tuple(
            Differs(name, told[name], str(now[name]))
            for name in ESTIMATOR
            if name in told and float(told[name]) != float(now[name])
        ),
        largest_difference=float(np.concatenate(apart).max(initial=0.0)),
    )


def _made(version: str, told: Mapping[str, str]) -> _Made:
    if "recipe_settings" not in told:
        raise Refused(
            f"version {version} cannot be made again: its run has no parameter recipe_settings, so it was registered"
            " by hand or by an older version of this package; only what `cancellations retrain` made has all that"
            " a fit takes on record"
        )
    try:
        return _Made(
            name=told["recipe"],
            recipe=recipe_from(told["recipe"], json.loads(told["recipe_settings"])),
            rule=labels.LabelRule(
                settle_days=int(told["settle_days"]),
                half_life_days=float(told["half_life_days"]),
                matures=labels.Matures(told["matures"]),
            ),
            as_of=date.fromisoformat(told["as_of"]),
            seed=int(told["seed"]),
        )
    except KeyError as error:
        raise Refused(f"version {version} cannot be made again: its run has no parameter {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"the parameters of version {version}'s run cannot be read: {error}; were they changed in MLflow?"
        ) from error


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[Differs, ...]:
    names = sorted({*then, *now})
    return tuple(Differs(n, then.get(n), now.get(n)) for n in names if then.get(n) != now.get(n))
