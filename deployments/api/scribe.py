"""A process of its own that records answers: what it takes to write them keeps nobody waiting who asks."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from cancellations.bootstrap import App
from cancellations.errors import CancellationsError, ServiceDown
from cancellations.settings import Settings
from cancellations.usecases.serve import Note, Recorded

# A process that does not end when its pipe is closed is ended after so long.
LAST_SECONDS = 10.0
# Answers that are made ready for the pipe at a time: nobody else's code runs meanwhile.
AT_ONCE = 100


class Scribe:
    """Records in another process, one request after the other; that ends with this one, however this one ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: tuple[BaseProcess, Connection] | None = None

    def start(self) -> None:
        if self._running is None:
            # Not by a fork: that would copy open connections and the threads' locks.
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_record, args=(self._settings, theirs), name="recorder", daemon=True)
            process.start()
            theirs.close()
            self._running = process, ours

    def record(self, notes: Sequence[Note]) -> Recorded:
        """As `App.record`; raises `ServiceDown` when the process has ended: the next call starts another."""
        self.start()
        assert self._running is not None
        _, pipe = self._running
        try:
            for start in range(0, len(notes), AT_ONCE):
                pipe.send(notes[start : start + AT_ONCE])
            pipe.send(None)
            answer: Recorded | Exception = pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise ServiceDown("the process that records answers has ended; another one is started") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        if self._running is None:
            return
        process, pipe = self._running
        self._running = None
        pipe.close()
        process.join(LAST_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _record(settings: Settings, pipe: Connection) -> None:
    """What the process does, until nobody is at the other end of its pipe."""
    # Ctrl-C reaches it too; it ends when all is recorded.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    app = App(settings)
    with suppress(EOFError, OSError):
        while True:
            notes: list[Note] = []
            while (some := pipe.recv()) is not None:
                notes += some
            answer: Recorded | Exception
            try:
                answer = app.record(notes)
            except CancellationsError as error:
                answer = type(error)(str(error))
            except Exception as error:  # noqa: BLE001 (told at the other end)
                answer = RuntimeError(repr(error))
            pipe.send(answer)
    app.store.close()
