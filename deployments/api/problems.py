"""What an answer says when there is none: what was found, where, and what to do; never how our code looks inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

# Of many, as many are told as a person reads.
MOST_TOLD = 20
# Seconds after which a caller that was refused may try again.
RETRY_AFTER = 1


@dataclass(frozen=True)
class Detail:
    """One thing that is wrong: where in the request, and what."""

    where: str
    what: str


class Problem(Exception):
    """A request that is not answered; `do` says what would help, `details` where in the request it is wrong."""

    def __init__(
        self,
        status: HTTPStatus,
        what: str,
        do: str,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.do = status, what, do
        self.details = tuple(details)
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> Response:
        told: dict[str, Any] = {"error": self.what, "do": self.do, "request_id": request_id}
        if self.details:
            told["problems"] = [vars(detail) for detail in self.details[:MOST_TOLD]]
            told["more_problems"] = max(0, len(self.details) - MOST_TOLD)
        return Response(to_json(told), self.status, self.headers, "application/json")


def busy(what: str, do: str = "try again later, and more slowly") -> Problem:
    """Refused for now, with the time to wait."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, what, do, headers={"Retry-After": str(RETRY_AFTER)})


def failure(request_id: str) -> Problem:
    """Of what nobody foresaw; the log says more under the request's id."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "the server failed on this request",
        f"tell its operator the request id {request_id}: the log says more under it",
    )


@dataclass(frozen=True)
class Told:
    """What was found, what to do about it, and where in the request it is wrong, as far as it is."""

    error: str
    do: str
    request_id: str
    problems: list[Detail] = field(default_factory=list)
    more_problems: int = 0
