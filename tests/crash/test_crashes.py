"""Whatever dies while it loads or scores: after a restart every table is as if nothing had happened."""

from __future__ import annotations

import ast
import inspect
import signal
import time
from collections.abc import Generator
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
from act import DIED, perform
from children import PATIENCE, Children
from dying import die_and_go_on, none_fails, two_at_once
from loading import STEPS, WRITES
from undisturbed import Undisturbed

from cancellations.usecases import ingest, point_in_time, score

SEED = 20


def test_every_write_of_ingest_and_score_is_a_crash_point(undisturbed: Undisturbed) -> None:
    called = set().union(*(heard.called for heard in undisturbed.heard))
    changing = set().union(*(heard.changing for heard in undisturbed.heard))
    in_the_code = {
        node.attr
        for module in (ingest, score, point_in_time)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "work"
    }
    assert called == in_the_code, "let the act of these tests call what ingest and score call"
    if undisturbed.tells_changes:
        assert changing == WRITES, "name the methods that write in WRITES"
    for moment in (*WRITES, "commit", "after commit"):
        assert any(f": {moment} #1" in point for heard in undisturbed.heard for point in heard.points), moment


def test_whatever_dies_at_one_crash_point_after_another_ends_as_if_undisturbed(
    undisturbed: Undisturbed, children: Children
) -> None:
    def die_at_all(step: int, heard: list[str]) -> Generator[BaseProcess, None, str | None]:
        # Whoever goes on counts anew: the first two of a kind lead through many of its places.
        points = [point for point in heard if point.endswith((" #1", " #2"))]
        place = undisturbed.world(step)
        while not place.ended:
            process = children.start(perform, place, [step], set(points) - set(place.died))
            yield process
            if process.exitcode not in (0, DIED):
                return f"{place.died}: exit code {process.exitcode}; {place.failure}"
        if fault := undisturbed.fault(place, step):
            return f"{place.died}: {fault}"
        # What is done is not done again: later calls of a method may never come, its first one does.
        kinds, died = ({point.partition(" #")[0] for point in some} for some in (points, place.died))
        if missed := kinds - died:
            return f"nobody died at {missed}"
        undisturbed.scenery.drop(place)
        return None

    none_fails(die_at_all(step, heard.points) for step, heard in enumerate(undisturbed.heard))


@pytest.mark.long
def test_after_a_death_at_any_crash_point_a_restart_ends_as_if_undisturbed(
    undisturbed: Undisturbed, children: Children
) -> None:
    points = [(step, point) for step, heard in enumerate(undisturbed.heard) for point in heard.points]
    none_fails(die_and_go_on(undisturbed, children, *point) for point in points)


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.long)])
def test_what_is_killed_at_random_moments_ends_as_if_undisturbed(
    undisturbed: Undisturbed, children: Children, kills: int
) -> None:
    draw, seconds = np.random.default_rng(SEED), _whole(undisturbed, children)
    while kills:
        place, story = undisturbed.world(), []
        while place.ended < len(STEPS):
            process = children.start(perform, place, range(place.ended, len(STEPS)))
            moment = draw.uniform(0, seconds)
            process.join(moment if kills else PATIENCE)
            process.kill()
            process.join()
            if process.exitcode != 0:
                assert process.exitcode == -signal.SIGKILL and kills, (story, place.failure)
                kills -= 1
                story.append(f"killed after {moment:.3f} s, when {place.ended} steps had ended")
        print(*story, sep="\n")
        assert (fault := undisturbed.fault(place)) is None, fault
        undisturbed.scenery.drop(place)


def _whole(undisturbed: Undisturbed, children: Children) -> float:
    """Seconds that all steps take in one process."""
    place, began = undisturbed.world(), time.monotonic()
    assert children.run(perform, place, range(len(STEPS))).exitcode == 0, place.failure
    seconds = time.monotonic() - began
    assert (fault := undisturbed.fault(place)) is None, fault
    return seconds


@pytest.mark.parametrize("all_points", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_that_do_the_same_at_once_end_as_if_one_had_done_it_though_one_of_them_dies(
    undisturbed: Undisturbed, children: Children, all_points: bool
) -> None:
    draw = np.random.default_rng(SEED)
    for step, heard in enumerate(undisturbed.heard):
        points = heard.points if all_points else [str(draw.choice(heard.points))]
        for deaths in ([], *([point] for point in points)):
            place, ended = two_at_once(undisturbed, children, step, deaths=deaths)
            assert ended[0] == 0 and ended[1] in (0, DIED), (deaths, place.failure)
            assert (fault := undisturbed.fault(place, step)) is None, (deaths, fault)
            undisturbed.scenery.drop(place)
