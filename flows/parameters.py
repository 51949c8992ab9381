"""What parameters of flows may be: Prefect's form says so, and its server refuses the rest before a run begins."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Said = Annotated[str, Field(min_length=1)]
"""A text that says something."""
Version = Annotated[str, Field(pattern=r"^[0-9]+$")]
"""The number of a version of the model in MLflow."""
