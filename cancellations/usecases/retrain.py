"""One request, one training, at most one version: by a lease, within its attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain import labels
from cancellations.domain.events import ChallengerRegistered, ChampionChanged, Fact, RetrainFailed, RetrainRejected
from cancellations.domain.gate import GatePolicy, GateResult, backtest_start, gate
from cancellations.domain.promotion import Change, TrialPolicy, open_trial
from cancellations.domain.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from cancellations.domain.retraining import RequestState, RetrainRequest
from cancellations.errors import BadInput, CancellationsError, NotEnoughData, Refused
from cancellations.ports import Candidate, Classifier, Contestant, Registry, Store, Trainer, UnitOfWork, VersionRecord
from cancellations.usecases.aliases import project_aliases
from cancellations.usecases.point_in_time import as_scored

LEASE = "retrain"


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


def request_training(
    store: Store, *, as_of: date, reason: str, policy: TrainingPolicy, clock: Callable[[], datetime]
) -> RetrainRequest:
    """Writes down a person's wish for a version trained as of a day.

    The same wish again, for the same champion, is the same request, unless that one was rejected or
    failed: then it is a new one. Refused when the store is empty.
    """
    with store.begin() as work:
        champion = work.standing().champion
        span = work.booked_span()
        if span is None:
            raise NotEnoughData("the store holds no reservations; load some first: cancellations ingest FILE")
        name = f"{as_of}-" + (f"after-v{champion}" if champion else "first")
        request = RetrainRequest(name, as_of, reason, champion=champion)
        again = 1
        while (known := work.request(request.request_id)) is not None:
            if known.state not in (RequestState.REJECTED, RequestState.FAILED):
                return known
            again += 1
            request = replace(request, request_id=f"{name}-{again}")
        work.add_request(request, clock())
        work.commit()
    return request


def retrain(
    request_id: str,
    *,
    store: Store,
    registry: Registry,
    trainer: Trainer,
    policy: TrainingPolicy,
    owner: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None] = lambda text: None,
) -> RetrainRequest:
    """Works on a request until it ends; returns how it stands.

    A request that has ended is returned as it is. Raises `Refused` while another worker holds the
    lease, automatic retraining is paused, or a trial or probation has not ended; the request then keeps
    waiting. Too little data ends it as rejected. An error of the training counts as an attempt and is
    raised; the last attempt ends the request as failed.
    """
    request, token = _claim(request_id, store, policy, owner, clock())
    if token is None:
        say(f"request {request_id} has ended already: {request.state}")
        return request
    try:
        done = _train(request, token, store, registry, trainer, policy, clock, say)
    except NotEnoughData as error:
        return _reject(request, (f"refused: {error}",), token, store, clock())
    except Exception as error:
        _give_up(request, token, error, store, policy, clock())
        raise
    if done.state is RequestState.CANDIDATE:
        project_aliases(store, registry)
    return done


def _claim(
    request_id: str, store: Store, policy: TrainingPolicy, owner: str, now: datetime
) -> tuple[RetrainRequest, int | None]:
    with store.begin() as work:
        # The lease first: it keeps others out until the commit, so that what is read behind it holds.
        token = work.acquire_lease(LEASE, owner, now, policy.lease_ttl)
        request = work.request(request_id)
        if request is None:
            raise BadInput(f"no retrain request {request_id!r} in the store; `cancellations status` lists them")
        if request.state.final:
            return request, None
        paused = work.paused()
        if paused is not None and request.report_id is not None:
            raise Refused(f"automatic retraining is paused ({paused}); `cancellations resume` lets {request_id} go on")
        running = work.open_trial()
        if running is not None:
            raise Refused(f"{running} has not ended; request {request_id} waits for it")
        if token is None:
            holder = work.lease_holder(LEASE, now)
            raise Refused(f"another retrain runs ({holder}); request {request_id} waits for its end")
        claimed = replace(request, state=RequestState.RUNNING, attempts=request.attempts + 1)
        work.update_request(claimed, now)
        work.commit()
    return claimed, token


def _give_up(
    request: RetrainRequest, token: int, error: Exception, store: Store, policy: TrainingPolicy, now: datetime
) -> None:
    """After an error: waiting again, or failed for good. A lease that was lost leaves it to its new owner."""
    text = f"attempt {request.attempts}: {error if isinstance(error, CancellationsError) else repr(error)}"
    with store.begin() as work:
        try:
            work.check_lease(LEASE, token, now, policy.lease_ttl)
        except Refused:
            return
        request = replace(request, detail=(*request.detail, text))
        if request.attempts >= policy.max_attempts:
            fail(work, request, now)
        else:
            work.update_request(replace(request, state=RequestState.WAITING), now)
        work.release_lease(LEASE, token)
        work.commit()


def fail(work: UnitOfWork, request: RetrainRequest, now: datetime) -> None:
    """Ends a request whose attempts are used up, and tells the owners."""
    work.update_request(replace(request, state=RequestState.FAILED), now)
    fact = RetrainFailed(request.request_id, request.champion, request.as_of, request.detail)
    work.add_messages(fact.messages(), now)


def _train(
    request: RetrainRequest,
    token: int,
    store: Store,
    registry: Registry,
    trainer: Trainer,
    policy: TrainingPolicy,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> RetrainRequest:
    def still_ours() -> None:
        with store.begin() as work:
            work.check_lease(LEASE, token, clock(), policy.lease_ttl)
            work.commit()

    rule = policy.labels
    with store.begin() as work:
        history = work.history(booked_until=request.as_of, known_until=request.as_of)
        standing = work.standing()
        champion = work.version(standing.champion) if standing.champion else None
        recipes = _competing(policy, champion)
        if not any(recipe.labels.stepwise for recipe in recipes.values()):
            history = history[labels.maturity(history, rule) <= pd.Timestamp(request.as_of)].reset_index(drop=True)
        bookings = Bookings(history, as_scored(work, history, rule), rule)
    say(f"{int(bookings.matured_by(request.as_of).sum()):,} bookings had matured by {request.as_of}")

    backtest = _backtest(bookings, recipes, champion, registry, trainer, request.as_of, policy, still_ours)
    say("; ".join(backtest.result.reasons))
    still_ours()
    if not backtest.result.passed:
        registry.log_refusal(request.request_id, backtest.result.reasons, backtest.contest)
        return _reject(request, backtest.result.reasons, token, store, clock())

    candidate = _candidate(request, bookings, backtest, recipes, trainer, policy, still_ours)
    still_ours()
    record = registry.register(candidate)
    say(f"registered version {record.version}, by recipe {record.recipe}")
    return _stand(request, record, backtest.result.reasons, token, store, policy, clock())


def _competing(policy: TrainingPolicy, champion: VersionRecord | None) -> dict[str, Recipe]:
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
class _Backtest:
    start: date
    result: GateResult
    contest: tuple[Contestant, ...]
    metrics: dict[str, float]
    importance: dict[str, float]
    test: np.ndarray
    probability: np.ndarray


def _backtest(
    bookings: Bookings,
    recipes: Mapping[str, Recipe],
    champion: VersionRecord | None,
    registry: Registry,
    trainer: Trainer,
    as_of: date,
    policy: TrainingPolicy,
    still_ours: Callable[[], None],
) -> _Backtest:
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
        models[name] = trainer.fit(bookings.built, examples, recipe, policy.seed)
        probabilities[name] = models[name].predict(built)
        still_ours()
    theirs: Classifier | None = registry.load(champion.version) if champion else None
    incumbent = champion.recipe if champion is not None and champion.recipe in recipes else next(iter(recipes))
    result = gate(
        truth,
        matured_on,
        base_rate,
        probabilities,
        incumbent,
        theirs.predict(built) if theirs else None,
        policy.gate,
        policy.seed,
    )
    chosen = models[result.chosen]
    return _Backtest(
        start=start,
        result=result,
        contest=tuple(
            Contestant(
                name,
                {**trainer.parameters(recipe), **_described(recipe), "backtest_from": start.isoformat()},
                asdict(result.rated[name]),
            )
            for name, recipe in recipes.items()
        ),
        metrics=result.metrics,
        importance=trainer.importance(chosen, built, truth, policy.seed),
        test=test,
        probability=probabilities[result.chosen],
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


def _candidate(
    request: RetrainRequest,
    bookings: Bookings,
    backtest: _Backtest,
    recipes: Mapping[str, Recipe],
    trainer: Trainer,
    policy: TrainingPolicy,
    still_ours: Callable[[], None],
) -> Candidate:
    """The chosen recipe, fitted on everything that is known by the request's day."""
    rule, as_of = bookings.rule, request.as_of
    name = backtest.result.chosen
    recipe = recipes[name]
    model, training = fit_version(bookings, recipe, as_of, trainer, policy.seed)
    still_ours()
    ripe = bookings.matured_by(as_of)
    label = bookings.label(as_of)
    return Candidate(
        request_id=request.request_id,
        model=model,
        as_of=as_of,
        recipe=name,
        parameters={
            **trainer.parameters(recipe),
            **_described(recipe),
            "recipe": name,
            "recipes_tried": ", ".join(recipes),
            "seed": policy.seed,
            "settle_days": rule.settle_days,
            "half_life_days": rule.half_life_days,
            "matures": rule.matures.value,
            "as_of": as_of.isoformat(),
            "backtest_from": backtest.start.isoformat(),
        },
        metrics={
            **backtest.metrics,
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
    return model, training.iloc[used].reset_index(drop=True)


def _described(recipe: Recipe) -> dict[str, Any]:
    """A recipe as parameters of a run."""
    told = recipe.settings()
    return {"labels": told["labels"], "weighted": told["weighted"], "without": ", ".join(told["without"])}


def _reference(built: pd.DataFrame, label: np.ndarray, policy: TrainingPolicy) -> pd.DataFrame:
    rows = min(policy.reference_rows, len(built))
    return built.assign(label=label).sample(rows, random_state=policy.seed).sort_index().reset_index(drop=True)


def _reject(
    request: RetrainRequest, reasons: tuple[str, ...], token: int, store: Store, now: datetime
) -> RetrainRequest:
    done = replace(request, state=RequestState.REJECTED, detail=(*request.detail, *reasons))
    _finish(done, RetrainRejected(request.request_id, request.champion, request.as_of, reasons), token, store, now)
    return done


def _stand(
    request: RetrainRequest,
    record: VersionRecord,
    reasons: tuple[str, ...],
    token: int,
    store: Store,
    policy: TrainingPolicy,
    now: datetime,
) -> RetrainRequest:
    """The new version takes its place: as the first champion, or as challenger, on trial from now on."""
    done = replace(request, state=RequestState.CANDIDATE, version=record.version, detail=(*request.detail, *reasons))
    by = "the gate"
    with store.begin() as work:
        seen = work.standing()
        first = seen.champion is None
        after = work.change_standing(
            seen,
            champion=record.version if first else seen.champion,
            challenger=None if first else record.version,
            change=Change.FIRST if first else Change.CHALLENGED,
            reason=request.reason,
            by=by,
            request_id=request.request_id,
            as_of=request.as_of,
            now=now,
        )
        work.add_version(record, now)
        fact: Fact
        if first:
            why = "the first version to pass the gate"
            fact = ChampionChanged(
                record.version, None, after.epoch, request.as_of, Change.FIRST.value, why, by, reasons=reasons
            )
        else:
            champion = work.version(str(seen.champion))
            trained = {r.version: r.trained_as_of for r in (record, champion) if r is not None}
            trial = open_trial(after, trained, request.as_of, request.request_id, policy.trial)
            work.add_trial(trial, now)
            fact = ChallengerRegistered(
                request.request_id, record.version, str(seen.champion), request.as_of, reasons, trial.trial_id
            )
        _close(work, done, fact, token, now)
        work.commit()
    return done


def _finish(request: RetrainRequest, fact: Fact, token: int, store: Store, now: datetime) -> None:
    with store.begin() as work:
        _close(work, request, fact, token, now)
        work.commit()


def _close(work: UnitOfWork, request: RetrainRequest, fact: Fact, token: int, now: datetime) -> None:
    """Ends the request in the caller's transaction; refused when the lease is another's by now."""
    work.check_lease(LEASE, token, now, timedelta(seconds=1))
    work.update_request(request, now)
    work.add_messages(fact.messages(), now)
    work.release_lease(LEASE, token)
