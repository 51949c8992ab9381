"""The digest flow as it is deployed: nothing to tell is an answer; a week that is over is written and shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from once import Once
from prefect.client.orchestration import SyncPrefectClient

from cancellations import settings
from cancellations.bootstrap import prepare
from cancellations.domain.events import DigestPublished, RetrainFailed
from flows.application import application
from flows.digest import digest

pytest_plugins = ["prefect_server"]

MONDAY = date(2016, 6, 27)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CANCELLATIONS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CANCELLATIONS_MAIL__WEEKLY", '["retrain.failed"]')
    application.cache_clear()
    yield tmp_path / "home"
    application.cache_clear()


def test_it_says_why_it_wrote_nothing_and_writes_when_there_is_something_to_tell(
    home: Path, once: Once, prefect: SyncPrefectClient
) -> None:
    once.home(home)
    prepare(settings.load())
    store = application().store
    ended = digest(MONDAY, return_state=True)
    assert ended.is_completed() and ended.message == "nothing to tell yet: there was no champion by 2016-06-26"
    with store.begin() as work:
        failed = RetrainFailed("request-7", None, MONDAY, ("no room",))
        work.add_messages(failed.messages(), datetime.now(UTC) - timedelta(days=7))
        work.commit()
    assert digest(MONDAY, return_state=True).is_completed()
    [shown] = [str(artifact.data) for artifact in prefect.read_artifacts() if artifact.key == "digest"]
    assert "the digest of 2016-06-20 to 2016-06-26 is written; it tells the 1 mail that waited for it" in shown
    with store.begin() as work:
        [waiting] = work.pending_messages()
    store.close()
    assert waiting.message.topic == DigestPublished.topic
