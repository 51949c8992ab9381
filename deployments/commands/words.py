"""How trials, changes of champion and versions are told to people."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from deployments.console import LABEL, WIDTH, Voice, one_line, wrapped

if TYPE_CHECKING:
    from cancellations.domain.aliases import AliasMove
    from cancellations.domain.checks import Hold
    from cancellations.domain.promotion import LedgerRow, Trial
    from cancellations.ports import StoredDecision
    from cancellations.usecases.explain import Explanation, History
    from cancellations.usecases.promote import Takeover
    from cancellations.usecases.recalibrate import Recalibration

TROUBLE = "red"
# A quarter of weekly looks; a champion is seldom older.
LAST_DECISIONS = 13


def pair(trial: Trial) -> str:
    """The two versions, the way round in which they are compared."""
    if trial.kind == "trial":
        return f"challenger {trial.rival} against champion {trial.champion}"
    return f"champion {trial.champion} against its predecessor {trial.rival}"


def figures(trial: Trial) -> str:
    """What has been read so far, in one line; the gain is the rival's, in log loss per booking."""
    if not trial.evidence:
        return "nothing read yet"
    step, days = trial.evidence[-1], len(trial.evidence)
    bounds = "no bounds yet" if step.low is None or step.high is None else f"{step.low:+.4f} to {step.high:+.4f}"
    read = f"{step.bookings:,} bookings of {days} {'day' if days == 1 else 'days'} until {step.day}"
    return f"{read}, gain of version {trial.rival} {step.gain:+.4f} ({bounds})"


def course(trial: Trial) -> str:
    """State, with what brought it about or will end it."""
    if trial.asked_until is not None and not trial.state.final:
        return f"{trial.state}, which has time until {trial.asked_until:%Y-%m-%d %H:%M} UTC"
    if not trial.state.final:
        return f"{trial.state}, ends by {trial.last_day}"
    decided = "" if trial.decided_on is None else f" by what matured until {trial.decided_on}"
    return f"{trial.state}{decided}"


def tell_trial(trial: Trial, voice: Voice) -> None:
    voice.fact(trial.kind, f"{pair(trial)}, opened {trial.opened_on}", style="bold")
    voice.fact("state", course(trial))
    voice.fact("reasons", *(line for reason in trial.reasons for line in wrapped(reason, width=WIDTH - LABEL)))
    if not trial.state.final and trial.kind == "trial":
        voice.fact("serving", f"{trial.serve_share:.0%} of open bookings get version {trial.rival}'s score")
    if trial.state == "awaiting approval":
        voice.fact(
            "to answer",
            f'yes: cancellations promote {trial.rival} --reason "…"',
            'no:  cancellations withdraw --reason "…"; no answer in time means no',
        )


def tell_takeover(done: Takeover, probation: Trial | None, voice: Voice) -> None:
    """The change, and what was found when it was checked."""
    voice.fact(done.change, f"version {done.version} is champion in place of {done.previous}", style="bold")
    voice.fact("ledger", f"epoch {done.epoch}")
    served = done.served.get(done.version, 0)
    voice.fact("verified", f"{served:,} open bookings are served version {done.version}")
    if done.alias is not None:
        voice.fact("", f"alias champion names {done.alias}")
    if done.change == "rolled back":
        voice.fact("promotions", "need a person's approval until `cancellations acknowledge`")
    elif probation is not None:
        voice.fact("probation", f"against version {probation.rival} until {probation.last_day}")
    tell_problems(done.problems, voice)


def tell_recalibration(found: Recalibration, voice: Voice) -> None:
    """What the day's evidence asks for, what was done about it, and the change that it made."""
    voice.fact("champion", f"version {found.champion}, by what was known on {found.evidence_until}", style="bold")
    voice.fact("shift", f"{found.present:+.3f} log odds now, {found.wanted:+.3f} asked for")
    voice.fact("reasons", *(line for reason in found.reasons for line in wrapped(reason, width=WIDTH - LABEL)))
    if found.takeover is None:
        voice.fact("verdict", f"{found.verdict}; champion {found.champion} stays")
    else:
        tell_takeover(found.takeover, None, voice)


def tell_problems(problems: tuple[str, ...], voice: Voice) -> None:
    for problem in problems:
        voice.fact("PROBLEM", problem, style=TROUBLE)


def tell_hold(hold: Hold) -> str:
    """What is, or was, held back from scoring, since when, and who let it go."""
    first, *others = map(str, hold.findings)
    what = f"{hold.bookings:,} bookings made {hold.day} held on {hold.held_on}: {first}"
    what += f"; and {len(others)} more" if others else ""
    if hold.state == "held":
        return f'{what}. As they are: cancellations check --release {hold.day} --reason "…"'
    return f"{what}; {hold.state} by {hold.by}: {hold.reason}"


def tell_history(history: History, voice: Voice) -> None:
    """A row for each change, what was compared meanwhile below it; the newest last."""
    if not history.ledger:
        voice.say("nobody has been champion yet")
        return
    trials: dict[int, list[Trial]] = {}
    for trial in history.trials:
        trials.setdefault(trial.epoch, []).append(trial)
    voice.say(_columns("epoch", "day", "change", "champion", "challenger", "by"), "bold")
    for row in history.ledger:
        standing = (row.champion or "–", row.challenger or "–")
        voice.say(_columns(str(row.epoch), str(row.as_of), row.change, *standing, row.by))
        voice.tell(row.reason, _INDENT)
        for trial in trials.get(row.epoch, []):
            came = str(trial.state) if trial.state.final else course(trial)
            voice.tell(f"{trial.kind} of {pair(trial)}: {came}; {figures(trial)}", _INDENT)
            for finding in history.guards.get(trial.trial_id, ()):
                voice.tell(f"guard: {finding}", _INDENT)
        for move in (m for m in history.alias_moves if m.epoch == row.epoch):
            voice.tell(alias_moved(move), _INDENT)


def alias_moved(move: AliasMove) -> str:
    often = "" if move.times == 1 else f", {move.times} times"
    return f"{move}{often}, first seen {move.seen_at:%Y-%m-%d %H:%M} UTC: {move.reason}"


_INDENT = " " * 19


def _columns(epoch: str, day: str, change: str, champion: str, challenger: str, by: str) -> str:
    return f"{epoch:>5}  {day:<10}  {change:<17}  {champion:<8}  {challenger:<10}  {by}"


def tell_explanation(found: Explanation, address: str | None, on: date, voice: Voice, shown: int) -> None:
    """A version's story, in the order in which it happened; `on` is the day on which bookings count as open,
    `shown` how many decisions about it are told, the last ones."""
    record = found.record
    voice.say(f"Version {record.version}: {found.role}", "bold")
    voice.tell(found.why, "  ")

    voice.heading("Why it was asked for")
    _tell_wish(found, voice)

    voice.heading("How it was made")
    _tell_making(found, address, voice)

    voice.heading("What the gate found")
    _tell_gate(found, voice)

    voice.heading("How it was compared")
    for trial in found.trials:
        voice.tell(f"{trial.kind} of {pair(trial)}, opened {trial.opened_on}: {course(trial)}", "  ")
        for reason in trial.reasons or (figures(trial),):
            voice.tell(reason, "    ")
        for finding in found.guards.get(trial.trial_id, ()):
            voice.tell(f"guard: {finding}", "    ")
    if not found.trials:
        voice.say("  with no other version on live bookings")

    voice.heading("What was decided while it was champion")
    _tell_decisions(found, shown, voice)

    voice.heading("What became of it")
    for row in found.ledger:
        voice.tell(
            f"{row.as_of}  {_part(record.version, row)} (epoch {row.epoch}, {row.change}, by {row.by}): {row.reason}",
            "  ",
        )
    if not found.ledger:
        voice.say("  it never stood")
    for move in found.alias_moves:
        voice.tell(f"at epoch {move.epoch} {alias_moved(move)}", "  ")
    voice.tell(f"now it is {found.role}; {found.served:,} bookings that are open on {on} are served its score", "  ")


def _tell_wish(found: Explanation, voice: Voice) -> None:
    if found.recalibrates is not None:
        voice.tell(
            f"by a recalibration of version {found.recalibrates}, of what was known on {found.record.known_until}", "  "
        )
        return
    if found.report is None:
        reason = "not on record" if found.request is None else found.request.reason
        voice.tell(f"by a person, without a report of the monitor: {reason}", "  ")
        return
    report, decision = found.report.report, found.report.decision
    voice.tell(
        f"by the monitor, which held {report.rows:,} bookings made {report.window} against {report.reference}"
        f" (champion {report.champion}): {decision.action}",
        "  ",
    )
    _tell_reasons(found.report, voice)


def _tell_reasons(stored: StoredDecision, voice: Voice) -> None:
    for signal in stored.report.signals:
        value = "–" if signal.value is None else f"{signal.value:.3f}"
        basis = f" (threshold {signal.basis})" if signal.basis else ""
        voice.say(f"    {signal.name:<23}  {value:>6} of {signal.threshold:<5g}  {signal.verdict}{basis}")
    for reason in stored.decision.reasons:
        voice.tell(reason, "    ")


def _tell_decisions(found: Explanation, shown: int, voice: Voice) -> None:
    """A line for each decision, the newest last."""
    told = found.decisions[-shown:] if shown else ()
    if earlier := len(found.decisions) - len(told):
        voice.say(f"  {earlier:,} earlier: cancellations explain {found.record.version} --all")
    for stored in told:
        voice.say(_cut(f"  {stored.report.window.end}  {_in_short(stored)}"))
    if not found.decisions:
        stood = any(row.champion == found.record.version for row in found.ledger)
        voice.say("  nothing yet: the monitor looked at no window" if stood else "  nothing: it was never champion")
    else:
        last = found.decisions[-1].report.window.end
        voice.say(f"  in full: cancellations explain {found.record.version} --decision {last}")


def _in_short(stored: StoredDecision) -> str:
    """The action, and the reason that made it: the rule that held it back, else the evidence."""
    action, reasons = stored.decision.action, stored.decision.reasons
    told = reasons[-1].removeprefix("held: ") if action == "hold" else reasons[0]
    return one_line(f"{action}: {told}")


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def tell_decision(stored: StoredDecision, voice: Voice) -> None:
    """One decision in full: what was measured, every reason in the order in which it was weighed, what followed."""
    report = stored.report
    voice.say(f"{report.window.end}, champion {report.champion}: {stored.decision.action}", "bold")
    rows = f"{report.rows:,} bookings made {report.window}"
    voice.tell(f"{rows}, against {report.reference_rows:,} of {report.reference}", "  ")
    _tell_reasons(stored, voice)
    followed = "nothing was asked for" if stored.request_id is None else f"retrain request {stored.request_id}"
    voice.tell(f"{followed}; report {stored.report_id}, recorded {stored.recorded_at:%Y-%m-%d %H:%M} UTC", "  ")


def decision_in_brief(stored: StoredDecision) -> dict[str, object]:
    """A decision for programs; `--decision` gives all that was measured."""
    return {
        "report_id": stored.report_id,
        "window": stored.report.window,
        "evidence": stored.report.evidence(),
        "action": stored.decision.action,
        "reasons": stored.decision.reasons,
        "request_id": stored.request_id,
        "recorded_at": stored.recorded_at,
    }


def _tell_making(found: Explanation, address: str | None, voice: Voice) -> None:
    record, request = found.record, found.request
    if found.recalibrates is not None:
        wish = f"{record.request_id}: {record.shift or 0:+.3f} on the log odds of version {found.recalibrates}"
    elif request is None:
        wish = f"{record.request_id}, none of ours: the version was registered by hand"
    else:
        attempts = "1 attempt" if request.attempts == 1 else f"{request.attempts} attempts"
        wish = f"{request.request_id}: {request.state} after {attempts}"
    rows, rate = record.metrics.get("training_rows"), record.metrics.get("training_cancel_rate")
    counted = "what" if rows is None else f"{rows:,.0f} bookings that"
    cancelled = "" if rate is None else f", {rate:.1%} of them cancelled"
    facts = {
        "request": wish,
        "data": f"{counted} had matured by {record.trained_as_of}{cancelled}",
        "digest": record.data_digest,
        "MLflow run": record.run_id,
    }
    if address is not None:
        facts["page"] = address
    for name, text in facts.items():
        voice.say(f"  {name:<10}  {text}")


def _tell_gate(found: Explanation, voice: Voice) -> None:
    metrics = found.record.metrics
    if found.recalibrates is not None:
        voice.tell("no backtest: the shifts of past evenings were held against none, with the figures told below", "  ")
        return
    loss, rows = metrics.get("backtest_log_loss"), metrics.get("backtest_rows")
    if loss is None:
        voice.say("  nothing: it never passed there")
        return
    tested = "" if rows is None else f" on {rows:,.0f} bookings that it was not fitted on"
    voice.say(f"  log loss {loss:.4f}{tested}")
    for reason in found.request.detail if found.request is not None else ():
        voice.tell(reason, "  ")


def _part(version: str, row: LedgerRow) -> str:
    if row.champion == version:
        return "became champion"
    if row.challenger == version:
        return "became challenger"
    return "left" if row.change == "challenger left" else f"gave way to version {row.champion}"
