"""The gate before the API: who may come in, how much they may bring, and what is written down of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cancellations.errors import BadInput
from cancellations.settings import SHORTEST_TOKEN, Api
from deployments.api.log import log
from deployments.api.measures import Measures
from deployments.api.problems import Problem, busy
from deployments.api.problems import failure as failed

# What a probe may ask without a token; the answer tells no more than yes or no then.
OPEN = ("/health", "/ready")
PATHS = (*OPEN, "/predict", "/model", "/metrics", "/openapi.json")
REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# How often the log tells of requests that were refused for now; /metrics counts each.
REFUSALS_TOLD_SECONDS = 1.0
# Callers whose pace is remembered.
MOST_CALLERS = 10_000
_LOCAL = re.compile(r"^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$", re.IGNORECASE)


def tokens_of(api: Api) -> dict[bytes, str]:
    """SHA-256 of each token -> its name; raises `BadInput` for a file that cannot be used."""
    found = {} if api.token is None else {_digest(api.token): "token"}
    if api.tokens_file is None:
        return found
    where = f"CANCELLATIONS_API__TOKENS_FILE {api.tokens_file}"
    try:
        lines = api.tokens_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{where} cannot be read: {error}. Correct the path, or its rights") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, token = line.strip().partition(" ")
        token = token.strip()
        if len(token) < SHORTEST_TOKEN:
            raise BadInput(
                f"{where}, line {number}: expected NAME TOKEN, the token of {SHORTEST_TOKEN} characters at least;"
                " one is made by: openssl rand -hex 24"
            )
        found[_digest(token)] = name
    if not found:
        raise BadInput(f"{where} holds no token; each line is NAME TOKEN")
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _shown(token: str) -> bytes:
    """The same of a token out of a header, whose bytes are read as latin-1."""
    return hashlib.sha256(token.encode("latin-1")).digest()


@dataclass
class _Pace:
    """A bucket that fills by the second; each request takes one from it."""

    left: float
    at: float


class Gate:
    """Lets a request through to the application, or refuses it; writes one line about each."""

    def __init__(self, app: ASGIApp, *, api: Api, tokens: Mapping[bytes, str], measures: Measures) -> None:
        self._app, self._api, self._tokens, self._measures = app, api, tokens, measures
        self._longest = api.body_kib * 1024
        self._paces: OrderedDict[str, _Pace] = OrderedDict()
        self._under_way = 0
        self._refused, self._refusals_told_at = 0, -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        request_id = _request_id(headers.get(REQUEST_ID.encode(), ""))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_own_headers(request_id)]}
            await send(message)

        caller, failure, refused = "", None, False
        self._under_way += 1
        try:
            address = str((scope.get("client") or ("",))[0])
            try:
                caller = self._caller(scope, headers)
            except Problem:
                self._keep_pace(address)
                raise
            state["known"] = bool(caller) or not self._tokens
            self._keep_pace(caller or address)
            if self._under_way > self._api.requests and scope["path"] not in OPEN:
                raise busy(f"{self._api.requests} requests are under way")
            body = await self._body(scope, headers, receive)
            await self._app(scope, _replay(body, receive), sending)
        except Problem as problem:
            refused = "Retry-After" in problem.headers
            await problem.response(request_id)(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 (told in the log, and by its number to the caller; never its traceback)
            failure = error
            if status == 0:
                await failed(request_id).response(request_id)(scope, receive, sending)
        finally:
            self._under_way -= 1
        seconds = time.perf_counter() - began
        path = scope["path"] if scope["path"] in PATHS else "other"
        self._measures.requests.labels(path, status).inc()
        self._measures.seconds.labels(path).observe(seconds)
        facts = {
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(1000 * seconds, 2),
            **({"caller": caller} if caller else {}),
            **state.get("told", {}),
        }
        if refused:
            self._tell_refusal(facts)
        else:
            wrong = status >= HTTPStatus.INTERNAL_SERVER_ERROR or failure is not None
            log(logging.ERROR if wrong else logging.INFO, "request", failure, **facts)

    def turned_away(self, scope: Scope, under_way: int, connections: int) -> tuple[Response, bool] | None:
        """What a request hears for which there is no place, and whether its connection ends with it; None where there
        is one. It does no more than that: of too many requests each must cost next to nothing."""
        if scope["path"] in OPEN:
            return None
        crowded = connections > self._api.connections
        if not crowded and under_way < self._api.requests:
            return None
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_ID.encode()), "")
        request_id = _request_id(given)
        many = f"{connections - 1} connections are open" if crowded else f"{under_way} requests are under way"
        response = busy(many).response(request_id)
        response.raw_headers += _own_headers(request_id)
        self._measures.requests.labels(scope["path"] if scope["path"] in PATHS else "other", response.status_code).inc()
        facts = {"request_id": request_id, "method": scope["method"], "path": scope["path"][:200]}
        self._tell_refusal({**facts, "status": response.status_code})
        return response, crowded

    def _tell_refusal(self, facts: Mapping[str, Any]) -> None:
        """A line a second at most: of too many requests a line each would be too much, too."""
        self._refused += 1
        now = time.monotonic()
        if now - self._refusals_told_at >= REFUSALS_TOLD_SECONDS:
            log(logging.WARNING, "refused", **facts, refused_since_last_told=self._refused)
            self._refused, self._refusals_told_at = 0, now

    def _caller(self, scope: Scope, headers: Mapping[bytes, str]) -> str:
        """The name of the token that was shown; empty where none is needed."""
        if not self._tokens:
            # A page in a browser on this machine may ask in the name of any host: it must not reach us by that.
            if not _LOCAL.match(headers.get(b"host", "")):
                raise Problem(
                    HTTPStatus.MISDIRECTED_REQUEST,
                    "without a token the API answers to localhost alone",
                    "ask by 127.0.0.1 or localhost, or give the API a token (CANCELLATIONS_API__TOKEN)",
                )
            return ""
        shown = headers.get(b"authorization", "")
        kind, _, token = shown.partition(" ")
        digest = _shown(token.strip())
        # All of them, whichever it is: the time that it takes tells nothing.
        known = [name for own, name in self._tokens.items() if hmac.compare_digest(own, digest)]
        if kind.lower() == "bearer" and known:
            return known[0]
        if scope["path"] in OPEN:
            return ""
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "a wrong token was shown" if shown else "no token was shown",
            "send the header Authorization: Bearer TOKEN; the operator of the API has the tokens",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _keep_pace(self, caller: str) -> None:
        now, most = time.monotonic(), self._api.requests_per_second
        pace = self._paces.setdefault(caller, _Pace(max(1.0, most), now))
        pace.left = min(max(1.0, most), pace.left + (now - pace.at) * most)
        pace.at = now
        self._paces.move_to_end(caller)
        if len(self._paces) > MOST_CALLERS:
            self._paces.popitem(last=False)
        if pace.left < 1:
            problem = busy(f"more than {most:g} requests a second came from one caller")
            problem.status = HTTPStatus.TOO_MANY_REQUESTS
            raise problem
        pace.left -= 1

    async def _body(self, scope: Scope, headers: Mapping[bytes, str], receive: Receive) -> bytes:
        if scope["method"] in ("GET", "HEAD"):
            return b""
        length = headers.get(b"content-length", "")
        if length.isascii() and length.isdigit() and int(length) > self._longest:
            raise self._too_long()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._api.timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return b""
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._longest:
                        raise self._too_long()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Problem(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body did not come within {self._api.timeout_seconds:g} s",
                "send it whole, at once",
                headers={"Connection": "close"},
            ) from None

    def _too_long(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is longer than {self._longest:,} bytes",
            "send fewer reservations at a time, or raise CANCELLATIONS_API__BODY_KIB",
            headers={"Connection": "close"},
        )


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


def _own_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """Of every answer, whatever it is."""
    return [
        (REQUEST_ID.encode(), request_id.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _replay(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body that was read, then whatever comes."""
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
