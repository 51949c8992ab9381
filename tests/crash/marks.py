"""Which cases are of the long run."""

from __future__ import annotations

from typing import Any

import pytest


def long(*values: object) -> Any:
    """A case of the long run."""
    return pytest.param(*values, marks=pytest.mark.long)


def files_first(fixture: str) -> pytest.MarkDecorator:
    """What takes its turn on PostgreSQL in the long run; `fixture` is the act undisturbed."""
    return pytest.mark.parametrize(fixture, ["sqlite", long("postgresql")], indirect=True)
