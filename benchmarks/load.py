"""Load on an HTTP server: requests by keep-alive connections, each answer timed; for a process of its own.

`closed`: each connection asks again when it was answered. `open_loop`: requests come at a rate whatever becomes of
them, by as many connections as that takes. Who asks in time is part of it: a client that is late sends what it owes in
one burst, and what it finds then says nothing of the server. So it listens between any two requests, and tells how
late they were.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

import numpy as np

# Nobody waits longer for an answer.
PATIENCE_SECONDS = 30.0
# Connections that an open loop opens at most: nearly as many as a server of ours lets in. Beyond, each that is refused
# is closed, and to open another one costs both sides more than a request.
MOST_CONNECTIONS = 450
# In the place of a status: no answer came, or none was asked for, since all connections were waiting.
CUT, UNASKED = 0, -1


@dataclass
class Answers:
    """Seconds that answers took, by status, `CUT` and `UNASKED` among them; of an open loop how late each request was
    asked. `seconds`: all took; `without_patience`: answers of 429 or 503 that did not say when to ask again."""

    seconds: float = 0.0
    taken: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    without_patience: int = 0

    def add(self, status: int, taken: float) -> None:
        self.statuses.append(status)
        self.taken.append(taken)

    @property
    def counts(self) -> dict[int, int]:
        return dict(sorted(Counter(self.statuses).items()))

    @property
    def answered(self) -> list[float]:
        return [t for t, status in zip(self.taken, self.statuses, strict=True) if status == 200]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds within which a share of the answers came."""
        return float(np.quantile(self.answered, share)) if self.answered else float("inf")


class _Connection:
    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port, self._path = str(parts.hostname), int(parts.port or 80), parts.path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> tuple[int, bool]:
        """The status of the answer, and whether it says when to ask again; `CUT` when none came."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._ask(body)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            return CUT, False

    async def _ask(self, body: bytes) -> tuple[int, bool]:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # the server has hung up since
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        told = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(told.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in told:
            self.close()
        return int(told.split(b" ", 2)[1]), b"\r\nretry-after: " in told

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def closed(address: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Answers:
    """Asks with bodies in their order, until the time is over or none is left."""
    return asyncio.run(_closed(address, bodies, connections, seconds))


async def _closed(address: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Answers:
    answers, places, began = Answers(), count(), time.perf_counter()

    async def ask() -> None:
        connection = _Connection(address)
        while time.perf_counter() - began < seconds and (place := next(places)) < len(bodies):
            asked = time.perf_counter()
            status, _ = await connection.ask(bodies[place])
            answers.add(status, time.perf_counter() - asked)
        connection.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    answers.seconds = time.perf_counter() - began
    return answers


def open_loop(address: str, bodies: Sequence[bytes], rate: float, seconds: float) -> Answers:
    """Asks at a rate (requests a second), each body in its turn, as many as there are or as fit into the time."""
    return asyncio.run(_open_loop(address, bodies, rate, seconds))


async def _open_loop(address: str, bodies: Sequence[bytes], rate: float, seconds: float) -> Answers:
    answers, used, began = Answers(), 0, time.perf_counter()
    # In turns: none is idle for so long that the server hangs up.
    free: deque[_Connection] = deque()
    asking: set[asyncio.Task[None]] = set()

    async def ask(connection: _Connection, body: bytes) -> None:
        asked = time.perf_counter()
        status, patience = await connection.ask(body)
        answers.add(status, time.perf_counter() - asked)
        answers.without_patience += status in (429, 503) and not patience
        free.append(connection)

    for place in range(min(len(bodies), int(rate * seconds))):
        due = began + place / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        answers.late.append(time.perf_counter() - due)
        if not free and used == MOST_CONNECTIONS:
            answers.add(UNASKED, 0.0)
            continue
        if not free:
            used += 1
            free.append(_Connection(address))
        task = asyncio.create_task(ask(free.popleft(), bodies[place]))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    for connection in free:
        connection.close()
    answers.seconds = time.perf_counter() - began
    return answers
