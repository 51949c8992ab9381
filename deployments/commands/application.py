"""The application on a home, as commands use it."""

from __future__ import annotations

import getpass
import os
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cancellations import home as homes
from cancellations.domain.events import Channel
from cancellations.errors import BadInput
from deployments import live
from deployments.console import Voice

if TYPE_CHECKING:
    from cancellations.bootstrap import App
    from cancellations.ports import OutboxEntry
    from cancellations.settings import Settings
    from cancellations.usecases.deliver import Delivered


def known_settings(home: Path) -> Settings:
    """Settings of a home that exists."""
    if not (home / homes.MARKER).is_file():
        raise BadInput(f"there is no home in {home}; make one with: cancellations init --home {home}")
    homes.prepare(home)
    for name, value in live.addresses(home).items():
        os.environ.setdefault(name, value)
    from cancellations import settings

    return settings.load(home=home.absolute())


def application(home: Path) -> App:
    """The application on a home that exists; with Prefect as doorbell where a server is known."""
    known = known_settings(home)
    from cancellations.bootstrap import App

    doorbell = None
    if os.environ.get("PREFECT_API_URL"):
        from flows.doorbell import PrefectDoorbell

        doorbell = PrefectDoorbell()
    return App(known, doorbell)


def today(app: App, as_of: datetime | None) -> date:
    """The day that counts as today: the option, else the settings'."""
    return app.settings.today if as_of is None else as_of.date()


def person() -> str:
    """Who acts at this keyboard, for the record."""
    try:
        return f"a person ({getpass.getuser()})"
    except (ImportError, KeyError, OSError):  # a container's user often has no name
        return f"a person (user {os.getuid()})"


def send(app: App, voice: Voice) -> None:
    """Sends what waits; what cannot leave now stays in the outbox, and is said."""
    delivered: Delivered = app.deliver()
    for problem in delivered.failed:
        voice.say(f"  not sent yet: {problem}", "yellow")
    with app.store.begin() as work:
        waiting = [e for e in work.pending_messages() if not kept_for_digest(app.settings, e)]
    if waiting and (app.doorbell is None or app.mailer is None):
        wait = "message waits" if len(waiting) == 1 else "messages wait"
        voice.say(f"  {len(waiting)} {wait} in the outbox until `cancellations up` runs", "yellow")


def kept_for_digest(settings: Settings, entry: OutboxEntry) -> bool:
    """Whether a message waits because its kind does not come at once."""
    return entry.message.channel is Channel.MAIL and entry.message.topic in settings.mail.weekly_topics


def errors() -> Voice:
    """A voice on standard error, for what is no answer."""
    from rich.console import Console

    return Voice(Console(stderr=True, soft_wrap=True, highlight=False))
