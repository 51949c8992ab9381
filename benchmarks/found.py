"""What benchmarks last found: a JSON each in `results`, figures and curves by their names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Curve, Figure
from cancellations.errors import BadInput

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Found:
    """What one benchmark last found; `told` is its JSON."""

    name: str
    told: dict[str, Any]

    @property
    def figures(self) -> list[Figure]:
        return [Figure(**one) for one in self.told["figures"]]

    def figure(self, pattern: str) -> Figure:
        """The one figure whose whole name matches; raises `BadInput` where none or several do."""
        found = [one for one in self.figures if re.fullmatch(pattern, one.name)]
        if len(found) != 1:
            names = ", ".join(one.name for one in found[:5]) or "none"
            raise BadInput(f"results of {self.name}: {len(found)} figures are named {pattern!r}: {names}")
        return found[0]

    def having(self, pattern: str) -> list[Figure]:
        """All figures whose whole name matches, in their order."""
        return [one for one in self.figures if re.fullmatch(pattern, one.name)]

    def curves(self, picture: str) -> list[Curve]:
        """Lines of a picture, by the beginning of its name."""
        return [Curve(**one) for one in self.told.get("curves", ()) if one["figure"].startswith(picture)]


def read(folder: Path = RESULTS) -> dict[str, Found]:
    """What each benchmark last found, by its name; raises `BadInput` where a file cannot be read."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = Found(path.stem, json.loads(path.read_text()))
        except ValueError as error:
            raise BadInput(
                f"{path} is no JSON: {error}; run python -m benchmarks.everything --only {path.stem}"
            ) from None
    return found
