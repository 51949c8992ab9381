"""Whatever dies while it loads or scores: after a restart every table is as if nothing had happened."""

from __future__ import annotations

import ast
import inspect
import signal
from collections.abc import Generator
from dataclasses import replace
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
from act import DIED, STEPS, WRITES, perform
from children import PATIENCE, Children, in_lockstep, side_by_side
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
    def die_at_all(step: int, points: list[str]) -> Generator[BaseProcess, None, str | None]:
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
        undisturbed.databases.drop(place.url)
        return None

    _none_fails(side_by_side(die_at_all(step, heard.points) for step, heard in enumerate(undisturbed.heard)))


@pytest.mark.long
def test_after_a_death_at_any_crash_point_a_restart_ends_as_if_undisturbed(
    undisturbed: Undisturbed, children: Children
) -> None:
    def die_and_go_on(step: int, point: str) -> Generator[BaseProcess, None, str | None]:
        place = undisturbed.world(step)
        for deaths in ([point], []):
            process = children.start(perform, place, range(step + place.ended, step + 1), deaths)
            yield process
            if process.exitcode != (DIED if deaths else 0):
                return f"{point}: exit code {process.exitcode}; {place.failure}"
        if fault := undisturbed.fault(place, step):
            return f"{point}: {fault}"
        undisturbed.databases.drop(place.url)
        return None

    points = [(step, point) for step, heard in enumerate(undisturbed.heard) for point in heard.points]
    _none_fails(side_by_side(die_and_go_on(*point) for point in points))


def _none_fails(told: list[str | None]) -> None:
    failures = sorted(failure for failure in told if failure is not None)
    assert not failures, f"{len(failures)} of {len(told)} went wrong:\n" + "\n".join(failures)


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.long)])
def test_what_is_killed_at_random_moments_ends_as_if_undisturbed(
    undisturbed: Undisturbed, children: Children, kills: int
) -> None:
    draw = np.random.default_rng(SEED)
    while kills:
        place, story = undisturbed.world(), []
        while place.ended < len(STEPS):
            process = children.start(perform, place, range(place.ended, len(STEPS)))
            moment = draw.uniform(0, undisturbed.seconds)
            process.join(moment if kills else PATIENCE)
            process.kill()
            process.join()
            if process.exitcode != 0:
                assert process.exitcode == -signal.SIGKILL and kills, (story, place.failure)
                kills -= 1
                story.append(f"killed after {moment:.3f} s, when {place.ended} steps had ended")
        print(*story, sep="\n")
        assert (fault := undisturbed.fault(place)) is None, fault
        undisturbed.databases.drop(place.url)


@pytest.mark.parametrize("all_points", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_that_do_the_same_at_once_end_as_if_one_had_done_it_though_one_of_them_dies(
    undisturbed: Undisturbed, children: Children, all_points: bool
) -> None:
    draw = np.random.default_rng(SEED)
    for step, heard in enumerate(undisturbed.heard):
        points = heard.points if all_points else [str(draw.choice(heard.points))]
        for deaths in ([], *([point] for point in points)):
            place = undisturbed.world(step)
            other = replace(place, folder=place.folder / "other")
            pipes = [children.pipe() for _ in (place, other)]
            one = children.start(perform, place, [step], [], pipes[0][1])
            mortal = children.start(perform, other, [step], deaths, pipes[1][1])
            for _, theirs in pipes:
                theirs.close()
            in_lockstep([ours for ours, _ in pipes])
            for process in (one, mortal):
                process.join(PATIENCE)
            assert one.exitcode == 0, (deaths, place.failure)
            assert mortal.exitcode in ((0, DIED) if deaths else (0,)), (deaths, other.failure)
            assert (fault := undisturbed.fault(place, step)) is None, (deaths, fault)
            undisturbed.databases.drop(place.url)
