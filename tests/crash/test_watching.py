"""Holds and guards, whatever dies, races or is gone: nothing held is scored, and a guard rolls back once."""

from __future__ import annotations

import pytest
import watching
from absent import closed, done_when_it_is_back, gone
from children import Children
from dying import die_at_any, die_at_each, every_write_is_a_crash_point, kill_at_random, one_of_two_does_it
from marks import files_first, long
from undisturbed import Undisturbed
from watching import NEVER, WRITES

SEED = 20
FILES_FIRST = files_first("watching_undisturbed")
# One side is written, the other is not.
TIGHTEST = (
    ("hold", "keep_past #1"),
    ("hold", "add_hold #1"),
    ("hold", "after commit #2"),
    ("mend", "end_hold #1"),
    ("mend", "add_hold #1"),
    ("mend", "after send #1"),
    ("release", "end_hold #1"),
    ("release", "add_predictions #1"),
    ("guard", "add_guards #1"),
    ("guard", "change_standing #1"),
    ("guard", "hold_promotions #1"),
    ("guard", "set_alias #1"),
)


def test_every_write_of_holds_and_guards_is_a_crash_point(watching_undisturbed: Undisturbed) -> None:
    every_write_is_a_crash_point(watching_undisturbed, WRITES, ("set_alias", "send"))


def test_a_death_at_each_of_the_tightest_moments_ends_as_if_undisturbed(
    watching_undisturbed: Undisturbed, children: Children
) -> None:
    die_at_each(watching_undisturbed, children, TIGHTEST)


@pytest.mark.long
def test_a_death_at_any_crash_point_of_holds_and_guards_loses_and_doubles_nothing(
    watching_undisturbed: Undisturbed, children: Children
) -> None:
    print(f"{die_at_any(watching_undisturbed, children)} crash points")


@pytest.mark.parametrize("kills", [10, long(200)])
@FILES_FIRST
def test_kills_at_random_moments_of_holds_and_guards_lose_and_double_nothing(
    watching_undisturbed: Undisturbed, children: Children, kills: int
) -> None:
    by_step = kill_at_random(watching_undisturbed, children, kills, SEED)
    print(*(f"{kills} kills: {step}" for step, kills in by_step.items()), sep="\n")


@pytest.mark.parametrize("name", ["hold", "guard", long("mend"), long("release")])
@FILES_FIRST
def test_of_two_that_hold_or_guard_at_once_one_does_it(
    watching_undisturbed: Undisturbed, children: Children, name: str
) -> None:
    one_of_two_does_it(watching_undisturbed, children, name)


@pytest.mark.parametrize("moment", ["guard: set_alias", long("guard: load"), long("hold: load")])
@FILES_FIRST
def test_without_mlflow_holds_and_guards_are_done_when_it_is_back(
    watching_undisturbed: Undisturbed, children: Children, moment: str
) -> None:
    done_when_it_is_back(watching_undisturbed, children, moment, gone)


@pytest.mark.parametrize("moment", ["guard: add_guards", long("hold: add_hold"), long("release: end_hold")])
@FILES_FIRST
def test_without_its_database_holds_and_guards_are_done_when_it_is_back(
    watching_undisturbed: Undisturbed, children: Children, moment: str
) -> None:
    done_when_it_is_back(watching_undisturbed, children, moment, closed)


# What breaks each of the rules, by a hand in the database.
SPOILED = {
    "P2: a day that is held is scored": "UPDATE holds SET state = 'held'",
    "P2: a day was held, and no mail says so": "DELETE FROM messages WHERE topic = 'cancellations.data.broken'",
    "P7: a guard has rolled back twice, or without a finding": "DELETE FROM guards",
    "P12: a booking that was served is served no more": "DELETE FROM servings",
}


@FILES_FIRST
def test_each_rule_of_holds_and_guards_is_seen_when_it_is_broken(
    watching_undisturbed: Undisturbed,
) -> None:
    story = watching_undisturbed
    assert SPOILED.keys() == NEVER.keys()
    for fault, statement in SPOILED.items():
        place = story.scenery.copy(story.end)
        assert list(watching.wrong(place.url)) == []
        watching.spoil(place.url, statement)
        assert any(found.startswith(fault) for found in watching.wrong(place.url)), fault
        story.scenery.drop(place)
