"""The server under the API: uvicorn, one process, until Ctrl-C or TERM."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from cancellations.bootstrap import App
from cancellations.errors import BadInput
from deployments.api import log
from deployments.api.app import Api
from deployments.api.gate import is_loopback, tokens_of

# Requests that are under way when it stops have so long to end.
GRACE_SECONDS = 10
# Idle connections are closed after this.
KEEP_ALIVE_SECONDS = 30
BACKLOG = 1_024
# Threads that record and read wait for this one at most so long where they hold the interpreter.
SWITCH_SECONDS = 0.0005


# What a request hears for which there is no place, by how many are under way and how many connections are open, its own
# among them; and whether that ends with it. None where there is a place.
TurnedAway = Callable[[Scope, int, int], tuple[Response, bool] | None]


class Protocol(HttpToolsProtocol):
    """uvicorn's, which turns away requests for which there is no place, and waits for a request's head, and for its
    answer to be read, no longer than a client may take.

    uvicorn makes a task of each request before anybody can refuse it: at twice what can be answered refusing takes
    the time that answers need. Its own limit refuses without Retry-After, and it waits for heads for ever.
    """

    head_seconds: float
    turned_away: TurnedAway
    _head: asyncio.TimerHandle | None = None

    # asyncio names the base class, uvicorn the transport of a TCP server, which it is.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Between two requests uvicorn's own timer runs until the next one begins.
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._forget_head()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        away = self.turned_away(cast(Scope, cycle.scope), len(self.tasks), len(self.connections))
        if away is None:
            super()._start_asgi_task(cycle, app)
            return
        response, ends = away
        cycle.keep_alive = cycle.keep_alive and not ends
        headers = [*response.raw_headers, *([] if cycle.keep_alive else [(b"connection", b"close")])]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        body = b"" if cycle.scope["method"] == "HEAD" else bytes(response.body)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + body)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        # Whoever does not read its answer gets no more of it: to close waits until it is read.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _await_head(self) -> None:
        if self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there to stay need not be searched for garbage again and again, while somebody waits.
        gc.collect()
        gc.freeze()


def serve(app: App, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Answers until it is stopped; raises `BadInput` for an address that cannot be used, or must not be."""
    tokens = tokens_of(app.settings.api)
    if not tokens and not is_loopback(host):
        raise BadInput(
            f"{host} can be reached by others, and there is no token: set CANCELLATIONS_API__TOKEN or"
            " CANCELLATIONS_API__TOKENS_FILE, or listen on 127.0.0.1"
        )
    log.to(sys.stderr)
    sys.setswitchinterval(SWITCH_SECONDS)
    bound = bind(host, port)
    api = Api(app, tokens)
    config = configured(api, turned_away=api.turned_away, seconds=app.settings.api.timeout_seconds)
    with bound:
        name = f"[{host}]" if ":" in host else host
        guarded = "with" if tokens else "without"
        say(f"serving on http://{name}:{bound.getsockname()[1]} ({guarded} tokens); Ctrl-C stops")
        try:
            Server(config).run(sockets=[bound])
        except KeyboardInterrupt:
            say("stopped")


def configured(application: Any, *, turned_away: TurnedAway, seconds: float) -> uvicorn.Config:
    """How uvicorn serves an ASGI application; `seconds`: that the head of a request may take."""
    known = {"turned_away": staticmethod(turned_away), "head_seconds": seconds}
    return uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        # uvloop takes one new connection in each turn. While a turn is long, for whoever is connected, new ones would
        # wait for seconds, and hear nothing; asyncio takes all that are there.
        loop="asyncio",
        backlog=BACKLOG,
        http=type("Protocol", (Protocol,), known),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def bind(host: str, port: int) -> socket.socket:
    """Raises `BadInput` for an address that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol: of a socket that does not name it asyncio does not know that small answers must not wait
        # until the client has acknowledged the part before (TCP_NODELAY).
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise BadInput(
            f"{host}:{port} cannot be listened on: {error.strerror or error}. Choose another with --host or --port,"
            " or stop the program that has it"
        ) from error
    return bound
