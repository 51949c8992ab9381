"""Commands that stop something automatic, and let it go on."""

from __future__ import annotations

from deployments.commands.application import application
from deployments.commands.options import DEFAULT_HOME, HomeOption, Json, Reason
from deployments.console import Voice, print_json


def pause(reason: Reason, home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Stop automatic retraining: drift is still watched and recorded, but starts nothing.

    Example: cancellations pause --reason "price test until Monday"
    """
    application(home).pause(reason)
    if as_json:
        print_json({"paused": reason})
    else:
        Voice().say(f"automatic retraining is paused: {reason}. `cancellations resume` lets it go on")


def resume(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Let automatic retraining go on after a pause.

    Example: cancellations resume
    """
    reason = application(home).resume()
    if as_json:
        print_json({"paused": None, "was": reason})
    elif reason is None:
        Voice().say("automatic retraining was not paused")
    else:
        Voice().say(f"automatic retraining goes on (it was paused: {reason})")


def acknowledge(home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """Let promotions go by themselves again after a rollback. A trial that awaits an answer goes on waiting for it.

    Example: cancellations acknowledge
    """
    app = application(home)
    reason = app.acknowledge()
    if as_json:
        print_json({"promotions_held": None, "was": reason})
    elif reason is None:
        Voice().say("promotions did not need a person's approval")
    else:
        Voice().say(f"promotions go by mode {app.settings.trial.mode} again (they needed a person: {reason})")
