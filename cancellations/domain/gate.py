"""The backtest gate: what a new version must show before it is registered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from cancellations.domain.comparison import log_loss


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must reach on matured bookings that it was not fitted on.

    `backtest_days`: length of the test cohort, by maturity date. `min_rows` of it, and of the
    training rows: below them a log loss says little (its standard error is some .015 at 1,000 rows).
    `min_skill`: share of the base rate's log loss that the model must remove, the absolute floor.
    `tolerance`: by how much its log loss may exceed the champion's on the same rows; a refresh
    brings new data, and one bad week of them should not veto it (seed noise alone is .003).
    """

    backtest_days: int = 42
    min_rows: int = 1_000
    min_skill: float = 0.10
    tolerance: float = 0.01


def backtest_start(as_of: date, champion_trained_as_of: date | None, policy: GatePolicy) -> date:
    """Last maturity date that the backtest's model may be fitted on.

    Never before the champion's own training date: the champion must not have seen a test row.
    """
    start = as_of - timedelta(days=policy.backtest_days)
    return max(start, champion_trained_as_of) if champion_trained_as_of else start


@dataclass(frozen=True)
class GateResult:
    """Whether a candidate passed, each check with its figures, and the figures by name."""

    passed: bool
    reasons: tuple[str, ...]
    metrics: dict[str, float]


def gate(
    label: np.ndarray,
    base_rate: float,
    candidate: np.ndarray,
    champion: np.ndarray | None,
    policy: GatePolicy,
) -> GateResult:
    """Compares a candidate with the floor, and with the champion on the same rows.

    `label`, `candidate`, `champion`: one value per test row; `base_rate`: cancelled share of the
    rows that the candidate was fitted on, the forecast of someone who knows nothing else.
    """
    rows = len(label)
    if rows < policy.min_rows:
        return GateResult(
            False, (f"refused: {rows} test rows, {policy.min_rows} are needed",), {"backtest_rows": float(rows)}
        )
    loss = float(log_loss(label, candidate).mean())
    naive = float(log_loss(label, np.full(rows, base_rate)).mean())
    skill = 1 - loss / naive
    metrics = {"backtest_rows": float(rows), "backtest_log_loss": loss, "backtest_skill": skill}
    checks = [
        (
            skill >= policy.min_skill,
            f"log loss {loss:.4f} removes {skill:.1%} of the base rate's {naive:.4f} (floor {policy.min_skill:.0%})",
        )
    ]
    if champion is not None:
        theirs = float(log_loss(label, champion).mean())
        metrics |= {"champion_backtest_log_loss": theirs, "backtest_gain": theirs - loss}
        checks.append(
            (
                loss <= theirs + policy.tolerance,
                f"log loss {loss:.4f} against the champion's {theirs:.4f}"
                f" on the same {rows:,} rows (tolerance {policy.tolerance:g})",
            )
        )
    reasons = tuple(("passed: " if ok else "refused: ") + text for ok, text in checks)
    return GateResult(all(ok for ok, _ in checks), reasons, metrics)
