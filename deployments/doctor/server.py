"""Prefect's API, asked for facts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from cancellations.errors import BadInput, ServiceDown

# Of one request; a check as a whole has a limit of its own.
REQUEST_SECONDS = 10.0
# SQLite's lock is another's, for a moment.
BUSY_SECONDS = 0.5
START = "start it: cancellations up, or docker compose up --detach; or correct PREFECT_API_URL"


@dataclass(frozen=True)
class Clock:
    """A server's clock: when it was asked, what it said, when that arrived. HTTP tells whole seconds."""

    sent: datetime
    theirs: datetime
    received: datetime


class Unanswered(ServiceDown):
    """Prefect's server does not answer, or not as itself; `remedy` is what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True)
class PrefectServer:
    """A server at an API's address, e.g. http://127.0.0.1:4200/api; `auth` is its "user:password"."""

    address: str
    auth: str | None = None

    @classmethod
    def known(cls) -> PrefectServer | None:
        """The server that the environment or Prefect's profile names; None where neither does."""
        address, auth = os.environ.get("PREFECT_API_URL"), os.environ.get("PREFECT_API_AUTH_STRING")
        if not address:
            from prefect.settings import get_current_settings

            api = get_current_settings().api
            address = api.url
            auth = auth or (api.auth_string.get_secret_value() if api.auth_string is not None else None)
        return cls(address.rstrip("/"), auth or None) if address else None

    def get(self, path: str) -> Any:
        """The JSON behind a path, None where there is no such thing; raises `Unanswered`."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """The JSON that a query, or an event, is answered with."""
        return self._ask("POST", path, body)

    def clock(self) -> Clock:
        """Raises `Unanswered`."""
        sent = datetime.now(UTC)
        answer = self._answer("GET", "/health", None)
        return Clock(sent, parsedate_to_datetime(answer.headers["date"]), datetime.now(UTC))

    def _ask(self, method: str, path: str, body: Any) -> Any:
        answer = self._answer(method, path, body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Unanswered(f"Prefect at {self.address} refuses us (401)", "correct PREFECT_API_AUTH_STRING")
        if not answer.is_success:
            told = f"Prefect at {self.address} answers {path} with {answer.status_code}"
            raise Unanswered(told, "look at the server's log")
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise Unanswered(f"{self.address} is no Prefect API", "correct PREFECT_API_URL") from error

    def _answer(self, method: str, path: str, body: Any) -> httpx.Response:
        """Asks again for a while where the server is busy (503), as Prefect's own client does."""
        user, _, password = (self.auth or "").partition(":")
        deadline = time.monotonic() + REQUEST_SECONDS
        try:
            while True:
                answer = httpx.request(
                    method,
                    f"{self.address}{path}",
                    json=body,
                    auth=(user, password) if self.auth else None,
                    timeout=REQUEST_SECONDS,
                )
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    return answer
                time.sleep(BUSY_SECONDS)
        except httpx.InvalidURL as error:
            raise BadInput(f"PREFECT_API_URL is no address: {error}") from error
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise Unanswered(f"Prefect at {self.address} does not answer ({said})", START) from error
