"""The server under the API takes connections as they come, and sends what it has at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deployments.api.server import bind, configured


class Seen(asyncio.Protocol):
    """Whether each connection sends small parts without waiting for the client's acknowledgement."""

    at_once: list[int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection: socket.socket = transport.get_extra_info("socket")
        self.at_once.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with bind("127.0.0.1", 0) as bound:
        yield bound


def test_all_that_wait_are_taken_within_a_few_turns_and_answered_at_once(bound: socket.socket) -> None:
    config = configured(lambda *_: None, turned_away=lambda *_: None, seconds=1.0)
    seen: list[int] = []
    protocol = type("Protocol", (Seen,), {"at_once": seen})

    async def turns(count: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, sock=bound, backlog=config.backlog)
        with ExitStack() as exits:
            # The system holds them until they are taken; a turn is long where others have much to do in it.
            for _ in range(100):
                exits.enter_context(socket.create_connection(bound.getsockname()))
            for _ in range(count):
                await asyncio.sleep(0)
            assert len(seen) == 100 and all(seen)
        server.close()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(turns(10))
