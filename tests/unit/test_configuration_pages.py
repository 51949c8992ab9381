"""The configuration reference is what the settings say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments.reference import comments, knobs, pages

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages())
def test_the_page_is_as_it_would_be_written_now(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run: python -m deployments.reference"


def test_each_setting_stands_in_one_page_once_and_has_a_meaning() -> None:
    found = [knob.name for knob in knobs()]
    # Compose alone reads the one that is no setting.
    assert sorted(found) == sorted(set(comments()) - {"CANCELLATIONS_INCOMING"})
    told = [line.split("`")[1] for page in pages().values() for line in page.splitlines() if line.startswith("| `")]
    assert sorted(told) == sorted(name.removeprefix("CANCELLATIONS_") for name in found)
    assert all(knob.meaning for knob in knobs())


def test_what_is_set_here_does_not_reach_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pages()
    monkeypatch.setitem(os.environ, "CANCELLATIONS_MAIL__PASSWORD", "a-secret-of-a-length")
    assert pages() == before
