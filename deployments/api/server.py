"""The server under the API: uvicorn, one process, until Ctrl-C or TERM."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import uvicorn

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
    bound = _bound(host, port)
    config = uvicorn.Config(
        Api(app, tokens),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        backlog=BACKLOG,
        limit_concurrency=app.settings.api.connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with bound:
        name = f"[{host}]" if ":" in host else host
        guarded = "with" if tokens else "without"
        say(f"serving on http://{name}:{bound.getsockname()[1]} ({guarded} tokens); Ctrl-C stops")
        try:
            uvicorn.Server(config).run(sockets=[bound])
        except KeyboardInterrupt:
            say("stopped")


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise BadInput(
            f"{host}:{port} cannot be listened on: {error.strerror or error}. Choose another with --host or --port,"
            " or stop the program that has it"
        ) from error
    return bound
