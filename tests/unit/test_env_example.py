"""`.env.example` documents every setting, with its default."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from cancellations.settings import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
LINE = re.compile(r"^#?(CANCELLATIONS_[A-Z0-9_]+)=(.*)$", re.MULTILINE)
# Read by docker-compose.yaml, not by the settings.
COMPOSE = {"CANCELLATIONS_INCOMING"}


def names(settings: object, prefix: str = "CANCELLATIONS_") -> Iterator[str]:
    fields = type(settings).model_fields if isinstance(settings, BaseModel) else vars(settings)
    for name in fields:
        value = getattr(settings, name)
        path = prefix + name.upper()
        if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
            yield from names(value, f"{path}__")
        else:
            yield path


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
        monkeypatch.delenv(name)
    return Settings(_env_file=None)


def test_the_example_names_each_setting_once_and_no_other(defaults: Settings) -> None:
    documented = [name for name, _ in LINE.findall(EXAMPLE.read_text()) if name not in COMPOSE]
    assert sorted(documented) == sorted(names(defaults))


def test_the_example_uncommented_changes_nothing(defaults: Settings, tmp_path: Path) -> None:
    uncommented = tmp_path / ".env"
    uncommented.write_text("".join(f"{n}='{v}'\n" for n, v in LINE.findall(EXAMPLE.read_text()) if v))
    assert Settings(_env_file=uncommented) == defaults


def test_the_example_holds_no_secret() -> None:
    secrets = re.findall(r"^#?(\w*(?:PASSWORD|TOKEN|SECRET|KEY)\w*)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert {name for name, _ in secrets} == {
        *("CANCELLATIONS_DATABASE_PASSWORD", "CANCELLATIONS_MLFLOW_PASSWORD", "CANCELLATIONS_MAIL__PASSWORD"),
        *("CANCELLATIONS_API__TOKEN", "CANCELLATIONS_API__TOKENS_FILE"),
        "SECRETS",
    }
    assert {value for name, value in secrets if name != "SECRETS"} == {""}
