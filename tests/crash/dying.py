"""Ways to die in an act: at a named point, at a moment drawn at random, beside another who does the same."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
from act import DIED, REFUSED, Place, perform
from children import PATIENCE, Children, in_lockstep, side_by_side
from undisturbed import Undisturbed

# Whatever moment comes.
ANY = "any"


def go_on(undisturbed: Undisturbed, children: Children, place: Place, step: int) -> None:
    """Whatever happened to a step: doing it again ends as if nothing had."""
    assert children.run(perform, place, [step]).exitcode == 0, place.failure
    assert (fault := undisturbed.fault(place, step)) is None, fault
    undisturbed.scenery.drop(place)


def every_write_is_a_crash_point(undisturbed: Undisturbed, writes: Collection[str], moments: Collection[str]) -> None:
    """All methods by which the steps write are named in `writes`; they pass these, commits, and other moments."""
    if undisturbed.tells_changes:
        assert set().union(*(heard.changing for heard in undisturbed.heard)) == writes, "name what writes in WRITES"
    passed = [point for heard in undisturbed.heard for point in heard.points]
    for moment in (*writes, "commit", "after commit", *moments):
        assert any(f": {moment} #1" in point for point in passed), moment


def die_at_each(undisturbed: Undisturbed, children: Children, moments: Iterable[tuple[str, str]]) -> None:
    """One world in which somebody dies at one moment of a step after another, and the last one ends the story."""
    place = undisturbed.world()
    for name, moment in moments:
        died = children.run(perform, place, range(place.ended, undisturbed.steps), [f"{name}: {moment}"])
        assert died.exitcode == DIED, f"nobody died at {name}: {moment}; {place.failure}"
    assert children.run(perform, place, range(place.ended, undisturbed.steps)).exitcode == 0, place.failure
    assert (fault := undisturbed.fault(place)) is None, fault
    undisturbed.scenery.drop(place)


def die_at_any(undisturbed: Undisturbed, children: Children) -> int:
    """A world for each crash point, in which somebody dies there; how many there are."""
    points = [(step, point) for step, heard in enumerate(undisturbed.heard) for point in heard.points]
    return none_fails(die_and_go_on(undisturbed, children, *point) for point in points)


def die_and_go_on(
    undisturbed: Undisturbed, children: Children, step: int, point: str
) -> Generator[BaseProcess, None, str | None]:
    """Dies at a point, and does the step again: what went wrong, if anything did."""
    place = undisturbed.world(step)
    for deaths in ([point], []):
        process = children.start(perform, place, [step], deaths)
        yield process
        if process.exitcode != (DIED if deaths else 0):
            return f"{point}: exit code {process.exitcode}; {place.failure}"
    return _ended(undisturbed, place, step, point)


def killed(undisturbed: Undisturbed, children: Children, step: int, moment: float) -> tuple[bool, str | None]:
    """Kills who does a step some seconds after its start, then does it again: whether it came in time, and what
    went wrong."""
    place = undisturbed.world(step)
    process = children.start(perform, place, [step])
    process.join(moment)
    process.kill()
    process.join()
    if process.exitcode == 0:
        undisturbed.scenery.drop(place)
        return False, None
    story = f"{undisturbed.act.steps[step][0]}, killed after {moment:.3f} s"
    if process.exitcode != -signal.SIGKILL:
        return False, f"{story}: {place.failure}"
    if (code := children.run(perform, place, [step]).exitcode) != 0:
        return True, f"{story}: then exit code {code}; {place.failure}"
    return True, _ended(undisturbed, place, step, story)


def _ended(undisturbed: Undisturbed, place: Place, step: int, story: str) -> str | None:
    if fault := undisturbed.fault(place, step):
        return f"{story}: {fault}"
    undisturbed.scenery.drop(place)
    return None


def kill_at_random(undisturbed: Undisturbed, children: Children, kills: int, seed: int) -> dict[str, int]:
    """As many kills at moments of the whole act, drawn evenly, each in a world of its own; returns them by step."""
    # Each is told as it comes: a long run that is ended shows how far it came.
    draw = np.random.default_rng(seed)
    ends = np.cumsum(undisturbed.seconds)
    by_step: dict[str, int] = {}
    while sum(by_step.values()) < kills:
        moment = draw.uniform(0, ends[-1])
        step = int(np.searchsorted(ends, moment))
        came, fault = killed(undisturbed, children, step, moment - (ends[step] - undisturbed.seconds[step]))
        assert fault is None, fault
        if came:
            name = undisturbed.act.steps[step][0]
            by_step[name] = by_step.get(name, 0) + 1
            print(f"kill {sum(by_step.values())}: {name}", flush=True)
    return by_step


def two_at_once(
    undisturbed: Undisturbed, children: Children, step: int, *, other: int | None = None, deaths: Collection[str] = ()
) -> tuple[Place, list[int | None]]:
    """Two processes do a step, or the second another one, and write at the same moments; the second may die.

    Returns the world, and how both ended.
    """
    place = undisturbed.world(step)
    beside = replace(place, folder=place.folder / "other")
    pipes = [children.pipe() for _ in range(2)]
    both = [
        children.start(perform, place, [step], [], pipes[0][1]),
        children.start(perform, beside, [step if other is None else other], deaths, pipes[1][1]),
    ]
    for _, theirs in pipes:
        theirs.close()
    in_lockstep([ours for ours, _ in pipes])
    for process in both:
        process.join(PATIENCE)
    for process, where, may in zip(both, (place, beside), ((), (DIED,) if deaths else ()), strict=True):
        assert process.exitcode in (0, REFUSED, *may), (deaths, where.failure)
    return place, [process.exitcode for process in both]


def one_of_two_does_it(undisturbed: Undisturbed, children: Children, name: str) -> None:
    """Two do a step at once: one does it, and what it leaves is as if there had been no other."""
    step = undisturbed.step(name)
    place, ended = two_at_once(undisturbed, children, step)
    assert 0 in ended
    go_on(undisturbed, children, place, step)


def at_a_meeting(
    children: Children,
    place: Place,
    step: int,
    moment: str,
    happens: Callable[[], None],
    nth: int = 1,
    late: timedelta | None = None,
) -> int | None:
    """Does a step, and lets something happen when it comes to a moment, or to `ANY`, the nth time: how it ended."""
    ours, theirs = children.pipe()
    process = children.start(perform, place, [step], [], theirs, late)
    theirs.close()
    came = _go_on_until(ours, moment, happens, nth)
    process.join(PATIENCE)
    assert came >= nth, f"it came to {moment!r} {came} times: {place.failure}"
    return process.exitcode


def _go_on_until(meeting: Connection, moment: str, happens: Callable[[], None], nth: int) -> int:
    """How often it came to the moment."""
    times = 0
    while True:
        assert meeting.poll(PATIENCE), f"a child has not come to its meeting within {PATIENCE:.0f} s"
        try:
            come = meeting.recv()
        except (EOFError, ConnectionResetError):
            meeting.close()
            return times
        if moment in (ANY, come.partition(": ")[2]):
            times += 1
            if times == nth:
                happens()
        meeting.send("go on")


def none_fails(jobs: Iterable[Generator[BaseProcess, None, str | None]]) -> int:
    """Lets all of them run; how many there were."""
    told = side_by_side(jobs)
    failures = sorted(failure for failure in told if failure is not None)
    assert not failures, f"{len(failures)} of {len(told)} went wrong:\n" + "\n".join(failures)
    return len(told)
