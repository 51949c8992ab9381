"""The recalibrate flow as it is deployed: off, it leaves no trace; on, a rule that says no is an answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from once import Once

from cancellations import settings
from cancellations.bootstrap import prepare
from flows.application import application
from flows.recalibrate import OFF, recalibrate

pytest_plugins = ["prefect_server"]

DAY = date(2016, 6, 10)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CANCELLATIONS_HOME", str(tmp_path / "home"))
    application.cache_clear()
    yield tmp_path / "home"
    application.cache_clear()


def test_off_it_says_so_and_touches_nothing(home: Path) -> None:
    ended = recalibrate.fn(DAY)
    assert ended is not None and ended.is_completed()
    assert ended.message == OFF
    assert not home.exists()


@pytest.mark.usefixtures("prefect")
def test_on_a_home_without_a_champion_is_refused_with_a_sentence(
    home: Path, once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANCELLATIONS_RECALIBRATION__ENABLED", "true")
    once.home(home)
    prepare(settings.load())
    ended = recalibrate(DAY, return_state=True)
    application().store.close()
    assert (ended.name, ended.is_completed()) == ("Refused", True)
    assert "no champion to recalibrate" in str(ended.message)
