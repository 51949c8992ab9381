"""The real embedded stack, started once for each story that the tests of this folder ask about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from house import house
from once import Once
from stage import SETTINGS, Story, bookings, tell


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("e2e")
    file = folder / "bookings.parquet"
    bookings().to_parquet(file, index=False)
    with house(folder, once, SETTINGS) as opened:
        yield tell(opened, file)
