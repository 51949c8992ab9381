"""The configuration reference, written from the settings: `python -m deployments.reference` renews its pages.

Names, kinds, limits and defaults come from `cancellations.settings`; what a setting means from there too, and for the
policies of the domain from the comments of `.env.example`, which names each setting once.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cancellations.settings import SECRETS, Settings

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "CANCELLATIONS_"
# What decides about the model has a page of its own; all other groups are about running it.
ABOUT_THE_MODEL = (
    *("labels", "retrain_policy", "gate", "trial", "actions", "checks", "guards"),
    *("calibration", "monitor", "retrain", "recalibration"),
)
HEADS = {
    "configuration.md": """# Configuration: running it

From the environment, then the `.env` of the home, then the `.env` of the working folder. Lists and tables are JSON. A
wrong value is refused by name. What decides about the model is in [configuration-model.md](configuration-model.md).
Those with † may lie in a file, which the same name with `_FILE` behind it names. Written by
`python -m deployments.reference`; a test holds it equal to the settings.
""",
    "configuration-model.md": """# Configuration: the model

What decides when a version is made, tried, promoted and taken back. [configuration.md](configuration.md) has all others
and says where they are read from. Written by `python -m deployments.reference`; a test holds it equal to the settings.
""",
}


@dataclass(frozen=True)
class Knob:
    """One setting; `name` as in the environment."""

    name: str
    group: str
    kind: str
    default: str
    meaning: str


def knobs() -> Iterator[Knob]:
    """All settings, in the order in which they are declared."""
    yield from _knobs(Settings, PREFIX, "", comments())


def comments() -> dict[str, str]:
    """What `.env.example` says of each setting; several lines in a row may share one comment."""
    told, said = {}, ""
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        if found := re.match(rf"#({PREFIX}\w+)=", line):
            told[found[1]] = said
        elif line.startswith("# "):
            said = line.removeprefix("# ")
    return told


def _knobs(model: Any, prefix: str, group: str, told: dict[str, str]) -> Iterator[Knob]:
    for name, kind, default, limits, meaning in _fields(model):
        inner = f"{group}__{name}" if group else name
        if issubclass(type(default), BaseModel) or dataclasses.is_dataclass(default):
            yield from _knobs(type(default), f"{prefix}{name.upper()}__", inner, told)
            continue
        full = f"{prefix}{name.upper()}"
        yield Knob(full, group, f"{_kind(kind)}{limits}", _shown(default), meaning or told[full])


def _fields(model: Any) -> Iterator[tuple[str, Any, Any, str, str]]:
    """Name, kind, default, limits and meaning of each field."""
    if issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            yield name, field.annotation, field.default, _limits(field.metadata), field.description or ""
        return
    kinds = typing.get_type_hints(model)
    for each in dataclasses.fields(model):
        factory = each.default_factory
        default = each.default if factory is dataclasses.MISSING else factory()
        yield each.name, kinds[each.name], default, "", ""


def _limits(metadata: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [f"{sign} {getattr(m, name):g}" for m in metadata for name, sign in signs.items() if hasattr(m, name)]
    return f", {', '.join(found)}" if found else ""


def _kind(kind: Any) -> str:
    given = [k for k in typing.get_args(kind) if k is not types.NoneType]
    if isinstance(kind, types.UnionType):
        return _kind(given[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "text"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", date: "day", Path: "path"}
    if kind in names:
        return names[kind]
    return "table" if "dict" in str(kind).lower() or "Mapping" in str(kind) else "list"


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, tuple | list | dict):
        value = json.dumps(value)
    return f"`{value}`"


def pages() -> dict[str, str]:
    """Both pages by their names in `docs/`."""
    secret = {f"{PREFIX}{name.upper()}" for name in SECRETS}
    rows: dict[str, list[str]] = {
        name: ["| setting | kind | default | meaning |", "| --- | --- | --- | --- |"] for name in HEADS
    }
    for knob in knobs():
        about_the_model = knob.group.partition("__")[0] in ABOUT_THE_MODEL
        page = "configuration-model.md" if about_the_model else "configuration.md"
        name = knob.name.removeprefix(PREFIX)
        mark = " †" if knob.name in secret else ""
        meaning = knob.meaning.replace("|", "\\|")
        rows[page].append(f"| `{name}`{mark} | {knob.kind} | {knob.default} | {meaning} |")
    return {
        name: f"{head}\nEach name begins with `{PREFIX}`.\n\n" + "\n".join(rows[name]) + "\n"
        for name, head in HEADS.items()
    }


def main() -> None:
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
