"""The backtest gate: which recipe a new version is made by, and what it must show before it is registered.

All recipes are fitted on what had matured by the backtest's start and compared on what matured since, on the
same rows. Bookings of a day share its shocks, so differences are resampled by maturity day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import pandas as pd

from cancellations.domain.comparison import daily_gains, log_loss, resampled_gain

# Two fits on nearly the same bookings miss a share of cancellations by as much more or less.
NOISE_OF_BIAS = 0.02


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must reach on matured bookings that it was not fitted on.

    `backtest_days`: length of the test cohort, by maturity date. `min_rows` of it, and of the
    training rows: below them a log loss says little (its standard error is some .015 at 1,000 rows).
    `min_skill`: share of the base rate's log loss that the model must remove, the absolute floor.
    `tolerance`: by how much its log loss may exceed the champion's on the same rows; a refresh
    brings new data, and one bad week of them should not veto it (seed noise alone is .003).
    `max_bias`: by how much the mean probability may miss the share that was cancelled; a season's turn
    moves it by some .05 on the public file, a broken label feed by far more. Where the champion misses by
    more, guests have changed: then a candidate may miss as much, or no retrain would pass when it is needed.
    `resamples` of maturity days give an interval in which a difference lies with `confidence`.
    """

    backtest_days: int = 42
    min_rows: int = 1_000
    min_skill: float = 0.10
    tolerance: float = 0.01
    max_bias: float = 0.15
    resamples: int = 1_000
    confidence: float = 0.95


def backtest_start(as_of: date, champion_trained_as_of: date | None, policy: GatePolicy) -> date:
    """Last maturity date that the backtest's models may be fitted on.

    Never before the champion's own training date: the champion must not have seen a test row.
    """
    start = as_of - timedelta(days=policy.backtest_days)
    return max(start, champion_trained_as_of) if champion_trained_as_of else start


@dataclass(frozen=True)
class Rated:
    """A recipe on the test rows: its mean log loss, and what it saves against the incumbent's with an interval.

    Nats per booking; of the incumbent itself the gain is 0.
    """

    log_loss: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class GateResult:
    """Whether a candidate passed and by which recipe, each check with its figures, and the figures by name."""

    passed: bool
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    chosen: str = ""
    rated: Mapping[str, Rated] = field(default_factory=dict)


def gate(
    label: np.ndarray,
    matured_on: pd.Series,
    base_rate: float,
    recipes: Mapping[str, np.ndarray],
    incumbent: str,
    champion: np.ndarray | None,
    policy: GatePolicy,
    seed: int,
) -> GateResult:
    """Picks a recipe and holds it against the floor, and against the champion, on the same rows.

    `label`, `matured_on`, `champion` and each of `recipes` (probabilities by a recipe's name): one value per
    test row; `base_rate`: cancelled share of the rows that the recipes were fitted on, the forecast of
    someone who knows nothing else. `incumbent`: the recipe that stays unless another one is better with
    certainty: the lowest figure of several is the lowest by luck too often.
    """
    rows = len(label)
    if rows < policy.min_rows:
        return GateResult(
            False, (f"refused: {rows} test rows, {policy.min_rows} are needed",), {"backtest_rows": float(rows)}
        )
    rated = {name: _rate(label, matured_on, recipes[incumbent], p, policy, seed) for name, p in recipes.items()}
    better = {name: r for name, r in rated.items() if r.low > 0}
    chosen = min(better, key=lambda name: better[name].log_loss) if better else incumbent
    loss, candidate = rated[chosen].log_loss, recipes[chosen]
    naive = float(log_loss(label, np.full(rows, base_rate)).mean())
    skill = 1 - loss / naive
    bias = float(candidate.mean() - label.mean())
    metrics = {
        "backtest_rows": float(rows),
        "backtest_log_loss": loss,
        "backtest_skill": skill,
        "backtest_bias": bias,
    }
    allowed = policy.max_bias
    if champion is not None:
        allowed = max(allowed, abs(float(champion.mean() - label.mean())) + NOISE_OF_BIAS)
    told = [f"recipe {chosen}: {_contest(rated, chosen, incumbent)}"] if len(rated) > 1 else []
    checks = [
        (
            skill >= policy.min_skill,
            f"log loss {loss:.4f} removes {skill:.1%} of the base rate's {naive:.4f} (floor {policy.min_skill:.0%})",
        ),
        (
            abs(bias) <= allowed,
            f"mean probability {candidate.mean():.1%}, cancelled {label.mean():.1%} (at most {allowed:.0%} apart)",
        ),
    ]
    if champion is not None:
        versus = _rate(label, matured_on, champion, candidate, policy, seed)
        theirs = versus.log_loss + versus.gain
        metrics |= {
            "champion_backtest_log_loss": theirs,
            "backtest_gain": versus.gain,
            "backtest_gain_low": versus.low,
            "backtest_gain_high": versus.high,
        }
        checks.append(
            (
                versus.gain >= -policy.tolerance,
                f"log loss {loss:.4f} against the champion's {theirs:.4f} on the same {rows:,} rows: gain"
                f" {versus.gain:+.4f}, {versus.low:+.4f} to {versus.high:+.4f} (tolerance {policy.tolerance:g})",
            )
        )
    reasons = (*told, *(("passed: " if ok else "refused: ") + text for ok, text in checks))
    return GateResult(all(ok for ok, _ in checks), reasons, metrics, chosen, rated)


def _rate(
    label: np.ndarray,
    matured_on: pd.Series,
    incumbent: np.ndarray,
    candidate: np.ndarray,
    policy: GatePolicy,
    seed: int,
) -> Rated:
    loss = float(log_loss(label, candidate).mean())
    days = daily_gains(matured_on, label, incumbent, candidate)
    return Rated(loss, *resampled_gain(days, seed, policy.resamples, policy.confidence))


def _contest(rated: Mapping[str, Rated], chosen: str, incumbent: str) -> str:
    others = "; ".join(
        f"{name} {r.log_loss:.4f} ({r.gain:+.4f}, {r.low:+.4f} to {r.high:+.4f})"
        for name, r in rated.items()
        if name != incumbent
    )
    why = "better with certainty than" if chosen != incumbent else "none is better with certainty than"
    return f"{why} {incumbent} {rated[incumbent].log_loss:.4f}: {others}"
