"""Versions are loaded beside whoever follows the ledger, who is never kept waiting for long."""

from __future__ import annotations

import threading
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from cancellations.errors import BadInput, ServiceDown
from deployments.api.service import FIRST_PAUSE, LONGEST_PAUSE, Loading

PATIENCE = 60.0
VERSION: Any = SimpleNamespace(version="7")


def test_what_loads_for_long_is_told_and_taken_when_it_is_there() -> None:
    go, begun = threading.Event(), []

    def load(record: Any) -> Any:
        begun.append(record.version)
        assert go.wait(PATIENCE)
        return "a model"

    loading = Loading(load)
    for _ in range(2):
        with pytest.raises(ServiceDown, match="version 7 is still being loaded"):
            loading.load(VERSION, 0.01)
    go.set()
    # The thread that loads ends what it has begun; from then on it is there at once.
    loading._begun["7"].result(PATIENCE)
    assert loading.load(VERSION, 0.01) == "a model" and begun == ["7"]
    assert loading.load(VERSION, PATIENCE) == "a model" and begun == ["7", "7"]  # asked for anew, it is loaded anew
    loading.close()


def test_what_failed_is_tried_again_after_pauses_that_double() -> None:
    now, tried = 0.0, []

    def load(record: Any) -> Any:
        tried.append(now)
        raise BadInput("no artifact")

    loading = Loading(load, clock=lambda: now)
    while now < 200:
        with pytest.raises(BadInput, match="no artifact"):
            loading.load(VERSION, PATIENCE)
        now += 0.5
    assert tried[:5] == [0, FIRST_PAUSE, 3, 7, 15]
    assert max(b - a for a, b in pairwise(tried)) == LONGEST_PAUSE
    loading.close()
