"""What runs behind the API: requests in line before one thread that scores, a recorder, who follows the ledger."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from cancellations.bootstrap import App, clock
from cancellations.domain.reservation import Column
from cancellations.errors import CancellationsError, ServiceDown
from cancellations.ports import RowClassifier, VersionRecord
from cancellations.usecases.serve import Answer, Asked, Champion, Loader, Note, Serving
from deployments.api.log import log
from deployments.api.measures import Measures
from deployments.api.problems import busy
from deployments.api.scribe import Scribe

Result = TypeVar("Result")

# Bookings scored at once: more would let the first of them wait for the last.
AT_ONCE = 1_000
# Answers gather for so long before they are recorded, so many in a transaction at most. A transaction costs as much as
# a thousand of its rows.
GATHER_SECONDS, IN_ONE_WRITE = 0.5, 5_000
# Where too many answers wait to be recorded, whoever asks waits so long for the next write, and is refused then.
ROOM_SECONDS = 1.0
# After a failure the next attempt waits twice as long as the one before, up to this.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# A server that stops has so long to record what it has answered.
LAST_SECONDS = 10.0
# A version is loaded within a second or two, the first one, with all that it needs, in some more. Who loads for longer
# must not keep the ledger from being followed.
LOADING_SECONDS, FIRST_LOADING_SECONDS = 2.0, 120.0


class Loading:
    """Loads versions beside whoever follows the ledger: they wait for a moment, and hear that it takes longer.

    One that failed fails the same way until it is tried again, after a pause that doubles. For one thread.
    """

    def __init__(self, load: Loader, clock: Callable[[], float] = time.monotonic) -> None:
        self._load, self._clock = load, clock
        self._thread = ThreadPoolExecutor(1, "loading")
        self._begun: dict[str, Future[RowClassifier]] = {}
        self._tried_at: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def load(self, record: VersionRecord, seconds: float) -> RowClassifier:
        """Raises what loading raises, and `ServiceDown` while it takes longer than `seconds`."""
        version, now = record.version, self._clock()
        begun = self._begun.get(version)
        if begun is None or (_failed(begun) and now >= self._tried_at[version] + self._pauses[version]):
            begun = self._begun[version] = self._thread.submit(self._load, record)
            self._tried_at[version] = now
            self._pauses[version] = min(2 * self._pauses.get(version, FIRST_PAUSE / 2), LONGEST_PAUSE)
        try:
            model = begun.result(seconds)
        except TimeoutError:
            raise ServiceDown(f"version {version} is still being loaded") from None
        del self._begun[version], self._tried_at[version], self._pauses[version]
        return model

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _failed(begun: Future[RowClassifier]) -> bool:
    return begun.done() and begun.exception() is not None


class Service:
    """Everything behind the API, from `start` to `stop`."""

    def __init__(self, app: App, measures: Measures) -> None:
        self.app, self.measures = app, measures
        self.serving: Serving | None = None
        self.extras: tuple[Column, ...] = ()
        self.problem: str | None = "the server has only just started"
        self.reachable = False
        self._desk = app.desk()
        self._loading = Loading(app.load_rows)
        self._scribe = Scribe(app.settings) if app.settings.api.recorder == "process" else None
        # One thread each: they share nothing but what the desk guards.
        self._scoring, self._writing, self._following = (
            ThreadPoolExecutor(1, name) for name in ("scoring", "recording", "following")
        )
        self._waiting: deque[tuple[Asked, asyncio.Future[list[Answer]]]] = deque()
        self._rows = 0
        self._notes: deque[Note] = deque()
        self._in_writing: list[Note] = []
        self._asked, self._noted, self._written = asyncio.Event(), asyncio.Event(), asyncio.Event()

    # --- its life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._scribe is not None:
            await self._in(self._writing, self._scribe.start)
        await self._poll()
        # Without it the first to ask wait for it; a store that cannot be reached is told by the next poll.
        with suppress(CancellationsError):
            await self._in(self._following, self._desk.prepare)
        runs = (self._answer, self._record, self._follow)
        self._tasks = [asyncio.create_task(self._always(run)) for run in runs]

    async def _always(self, run: Callable[[], Awaitable[None]]) -> None:
        """One of the things that go on until it stops: what nobody foresaw ends none of them for good."""
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 (told in the log; to answer and to record goes on)
                log(logging.ERROR, "a part of the server failed and begins anew", error, part=run.__name__)
                await asyncio.sleep(GATHER_SECONDS)

    async def stop(self) -> None:
        """Records what was answered, as far as the store takes it in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                while self._notes or self._in_writing:
                    await asyncio.sleep(GATHER_SECONDS / 5)
        if lost := [*self._in_writing, *self._notes]:
            log(logging.ERROR, "stopped before all answers were recorded", lost=len(lost))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._scribe is not None:
            await self._in(self._writing, self._scribe.close)
        for thread in (self._scoring, self._writing, self._following):
            thread.shutdown(wait=False, cancel_futures=True)
        self._loading.close()
        self.app.store.close()

    @property
    def ready(self) -> bool:
        return self.serving is not None and self.reachable

    # --- answers ----------------------------------------------------------------------------------

    async def ask(self, asked: Asked) -> list[Answer]:
        """Raises `Problem` when there is no champion, when too much waits, or when it takes too long."""
        knobs, rows = self.app.settings.api, len(asked.bookings)
        if self.serving is None:
            raise busy(f"no version can answer: {self.problem}", "see /ready, and try again later")
        if self._rows + rows > knobs.waiting:
            raise busy(f"{self._rows:,} reservations wait for their answer")
        if not self.reachable:
            raise busy(f"the store cannot be reached: {self.problem}", "see /ready, and try again later")
        if asked.record and self.unrecorded + rows > knobs.unrecorded:
            await self._room_for(rows)
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._rows += rows
        self._asked.set()
        try:
            async with asyncio.timeout(knobs.timeout_seconds):
                return await future
        except TimeoutError:
            raise busy(f"no answer within {knobs.timeout_seconds:g} s") from None
        except ServiceDown as error:
            log(logging.ERROR, "the store failed", what=str(error))
            raise busy("the store cannot be used", "see /ready, and try again later") from error

    async def _room_for(self, rows: int) -> None:
        """Waits until so many more answers may wait to be recorded; raises `Problem` when that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_SECONDS):
                while self.unrecorded + rows > self.app.settings.api.unrecorded:
                    self._written.clear()
                    await self._written.wait()
                return
        raise busy(f"{self.unrecorded:,} answers wait to be recorded")

    @property
    def unrecorded(self) -> int:
        return len(self._notes) + len(self._in_writing)

    async def _answer(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                batch = self._take()
                if batch:
                    await self._answer_together(batch)

    def _take(self) -> list[tuple[Asked, asyncio.Future[list[Answer]]]]:
        """The first requests of the line; those that nobody waits for any more leave it."""
        batch: list[tuple[Asked, asyncio.Future[list[Answer]]]] = []
        rows = 0
        while self._waiting and (not batch or rows + len(self._waiting[0][0].bookings) <= AT_ONCE):
            asked, future = self._waiting.popleft()
            self._rows -= len(asked.bookings)
            if not future.done():
                batch.append((asked, future))
                rows += len(asked.bookings)
        return batch

    async def _answer_together(self, batch: Sequence[tuple[Asked, asyncio.Future[list[Answer]]]]) -> None:
        serving = self.serving
        assert serving is not None, "a version that answers stays until another one does"
        try:
            answers, notes = await self._in(
                self._scoring, lambda: self._desk.answer(serving, [asked for asked, _ in batch])
            )
        except Exception as error:  # noqa: BLE001 (each of them hears of it)
            if len(batch) > 1 and not isinstance(error, CancellationsError):
                # One of them is at fault; the others need not be told so.
                for one in batch:
                    await self._answer_together([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), told in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(told)
        given = Counter((answer.version, answer.arm or "none") for told in answers for answer in told)
        for labels, count in given.items():
            self.measures.predictions.labels(*labels).inc(count)
        if notes:
            self._notes.extend(notes)
            self._noted.set()

    async def champion(self) -> Champion:
        """Who is champion and why; raises `Problem` when the ledger cannot be read in time."""
        seconds = self.app.settings.api.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._in(self._following, self.app.champion)
        except TimeoutError:
            raise busy(f"the ledger was not read within {seconds:g} s") from None
        except CancellationsError as error:
            raise busy(str(error), "see /ready, and try again later") from error

    # --- what is recorded -------------------------------------------------------------------------

    async def _record(self) -> None:
        while True:
            while self._notes or self._in_writing:
                if not self._in_writing:
                    self._in_writing = [self._notes.popleft() for _ in range(min(IN_ONE_WRITE, len(self._notes)))]
                await self._write(self._in_writing)
                self._in_writing = []
                self._written.set()
            await self._noted.wait()
            self._noted.clear()
            await asyncio.sleep(GATHER_SECONDS)

    async def _write(self, notes: Sequence[Note]) -> None:
        """Until it is written; what the store refuses for itself is left out, and told."""
        pause = GATHER_SECONDS
        while True:
            try:
                written, overtaken = await self._in(self._writing, lambda: self._keep(notes))
            except ServiceDown as error:
                log(logging.ERROR, "answers are not recorded yet", waiting=self.unrecorded, what=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001 (whatever it is, the others must be recorded)
                if len(notes) > 1:
                    for note in notes:
                        await self._write([note])
                    return
                unforeseen = None if isinstance(error, CancellationsError) else error
                log(
                    logging.ERROR,
                    "an answer is not recorded",
                    unforeseen,
                    reservation_id=notes[0].reservation_id,
                    version=notes[0].version,
                    what=str(error),
                )
                self._desk.forget(notes)
                self.measures.dropped.inc()
                return
            else:
                self.measures.recorded.inc(written)
                self.measures.overtaken.inc(overtaken)
                return

    def _keep(self, notes: Sequence[Note]) -> tuple[int, int]:
        """How many predictions were new, and how many of the notes somebody had been faster with."""
        record = self.app.record if self._scribe is None else self._scribe.record
        written = overtaken = 0
        while notes:
            done = record(notes)
            written, overtaken = written + done.written, overtaken + len(done.overtaken)
            notes = self._desk.correct(notes, done.overtaken)
        return written, overtaken

    # --- who answers ------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.app.settings.api.poll_seconds)
            await self._poll()

    async def _poll(self) -> None:
        """Takes over what the ledger says now, as far as it can be served."""
        before, told, unforeseen = self.serving, self.problem, None
        try:
            self.extras, serving = await self._in(self._following, self._look)
            self.serving, self.reachable, self.problem = serving, True, "; ".join(serving.problems) or None
        except Exception as error:  # noqa: BLE001 (whatever a version or a server does, the last good one answers)
            self.problem = str(error) or repr(error)
            self.reachable = await self._in(self._following, self._database_answers)
            unforeseen = None if isinstance(error, CancellationsError) else error
        if self.problem is not None and self.problem != told:
            stays = "nobody" if before is None else f"version {before.champion.version}"
            log(logging.ERROR, "what the ledger says cannot be served", unforeseen, what=self.problem, stays=stays)
        if self.serving is not None and self.serving is not before:
            log(logging.INFO, "serving", **self.told)
        self._show()

    def _look(self) -> tuple[tuple[Column, ...], Serving]:
        self._desk.refresh()
        with self.app.store.begin() as work:
            extras = work.extra_columns()
        seconds = FIRST_LOADING_SECONDS if self.serving is None else LOADING_SECONDS
        return extras, self.app.follow(self.serving, lambda record: self._loading.load(record, seconds))

    def _database_answers(self) -> bool:
        try:
            with self.app.store.begin() as work:
                work.standing()
        except CancellationsError:
            return False
        return True

    @property
    def told(self) -> dict[str, Any]:
        """Who answers, for people and logs."""
        serving = self.serving
        if serving is None:
            return {}
        told: dict[str, Any] = {"epoch": serving.epoch, "champion": serving.champion.version}
        if serving.rival is not None:
            told["rival"] = serving.rival.version
        for one in serving.loaded.values():
            if one.model.slow is not None:
                told[f"version {one.version} is slow"] = one.model.slow
        return told

    def _show(self) -> None:
        self.measures.ready.set(self.ready)
        self.measures.behind.set(self.serving is not None and self.problem is not None)
        self.measures.serving.clear()
        if self.serving is None:
            return
        self.measures.epoch.set(self.serving.epoch)
        for version, one in self.serving.loaded.items():
            role = "champion" if one is self.serving.champion else "rival"
            self.measures.serving.labels(version, role).set(1)
        self.measures.slow.set(any(one.model.slow is not None for one in self.serving.loaded.values()))

    def measured(self) -> bytes:
        """`/metrics`, as things stand now."""
        self.measures.waiting.set(self._rows)
        self.measures.unrecorded.set(self.unrecorded)
        self.measures.history.set((clock() - self._desk.history_read_at).total_seconds())
        return self.measures.text()

    @staticmethod
    def _in(thread: ThreadPoolExecutor, act: Callable[[], Result]) -> Awaitable[Result]:
        return asyncio.get_running_loop().run_in_executor(thread, act)
