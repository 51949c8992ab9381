"""Rules of the doctor: what counts as right, and what has to be mended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cancellations.domain.health import GIB, Finding, Verdict, healthy, of_clock, of_space, of_versions

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_an_installation_is_healthy_with_notices_and_not_with_what_is_wrong_or_unknown() -> None:
    def found(*verdicts: Verdict) -> bool:
        return healthy(Finding("check", "where", verdict, "what") for verdict in verdicts)

    assert found() and found(Verdict.RIGHT, Verdict.NOTICE)
    assert not found(Verdict.RIGHT, Verdict.WRONG)
    assert not found(Verdict.RIGHT, Verdict.UNKNOWN)


def test_a_disk_needs_the_least_room_and_says_how_much_there_is() -> None:
    assert of_space("/home", 2 * GIB, 100 * GIB, 2 * GIB).verdict is Verdict.RIGHT
    full = of_space("/home", 2 * GIB - 1, 100 * GIB, 2 * GIB)
    assert full.verdict is Verdict.WRONG
    assert full.what == "2.0 of 100.0 GiB are free, at least 2 should be"
    assert "du -xh --max-depth=2 /home" in full.remedy


@pytest.mark.parametrize(
    ("theirs", "took", "step", "verdict"),
    [
        (NOW, 0.0, 0, Verdict.RIGHT),
        (NOW + 5 * SECOND, 0.0, 0, Verdict.RIGHT),
        (NOW + 5.1 * SECOND, 0.0, 0, Verdict.WRONG),
        (NOW - 5.1 * SECOND, 0.0, 0, Verdict.WRONG),
        # Of a clock in whole seconds the part that it hides is no difference; nor is the way of the answer.
        (NOW - 5.9 * SECOND, 0.0, 1, Verdict.RIGHT),
        (NOW - 6.1 * SECOND, 0.0, 1, Verdict.WRONG),
        (NOW + 5.1 * SECOND, 0.0, 1, Verdict.WRONG),
        (NOW + 8 * SECOND, 3.0, 0, Verdict.RIGHT),
        (NOW + 8.1 * SECOND, 3.0, 0, Verdict.WRONG),
    ],
)
def test_clocks_are_apart_by_more_than_can_be_told_from_none(
    theirs: datetime, took: float, step: int, verdict: Verdict
) -> None:
    found = of_clock("there", theirs, NOW, NOW + took * SECOND, 5 * SECOND, step * SECOND)
    assert found.verdict is verdict


def test_a_wrong_clock_says_by_how_much_and_which_way() -> None:
    ahead = of_clock("there", NOW + timedelta(hours=1), NOW, NOW, 5 * SECOND, timedelta(0))
    behind = of_clock("there", NOW - timedelta(hours=1), NOW, NOW, 5 * SECOND, timedelta(0))
    assert ahead.what.startswith("3,600 s ahead of this machine's")
    assert behind.what.startswith("3,600 s behind this machine's")


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ("3.8.8", "3.8.1", Verdict.RIGHT),
        ("3.8.8", "3.10.0", Verdict.NOTICE),
        ("3.8.8", "3.7.9", Verdict.WRONG),
        ("3.10.0", "3.8.8", Verdict.WRONG),
        ("3.8.8", "4.0.0", Verdict.WRONG),
        ("3.8.8", "None", Verdict.WRONG),
    ],
)
def test_a_server_is_of_its_clients_release_or_a_later_one_of_the_same_major(
    ours: str, theirs: str, verdict: Verdict
) -> None:
    found = of_versions("check", "there", "Prefect", ours, theirs, "upgrade it")
    assert found.verdict is verdict
    assert bool(found.remedy) is (verdict is Verdict.WRONG)
