"""Settings that are secrets: from files, out of sight, in the addresses that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from cancellations import settings
from cancellations.errors import BadInput
from cancellations.settings import SECRETS, Settings
from cancellations.store.engine import parse

LONG = "a-secret-of-a-length"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("CANCELLATIONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def value(known: Settings, secret: str) -> object:
    group, _, name = secret.rpartition("__")
    return getattr(getattr(known, group) if group else known, name)


def secrets(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Names of settings that the model itself keeps out of sight."""
    found = {f"{prefix}{name}" for name, field in model.model_fields.items() if not field.repr}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= secrets(field.annotation, f"{name}__")
    return found


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("by", ["environment", "env file"])
def test_a_secret_may_lie_in_a_file_of_its_own(
    secret: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{LONG}\n")
    name = f"CANCELLATIONS_{secret.upper()}_FILE"
    if by == "environment":
        monkeypatch.setenv(name, str(file))
    else:
        (tmp_path / ".env").write_text(f"{name}={file}\n")
    known = settings.load()
    assert value(known, secret) == LONG
    assert LONG not in repr(known) and LONG not in str(known)


def test_what_is_set_itself_wins_over_a_file_and_an_empty_file_sets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from the file")
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv("CANCELLATIONS_MAIL__PASSWORD", "set")
    monkeypatch.setenv("CANCELLATIONS_MAIL__PASSWORD_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("CANCELLATIONS_MLFLOW_PASSWORD_FILE", str(tmp_path / "empty"))
    known = settings.load()
    assert (known.mail.password, known.mlflow_password) == ("set", None)


def test_a_file_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANCELLATIONS_DATABASE_PASSWORD_FILE", "/nowhere/secret")
    with pytest.raises(BadInput, match="CANCELLATIONS_DATABASE_PASSWORD_FILE /nowhere/secret cannot be read"):
        settings.load()


def test_every_secret_may_come_from_a_file_and_is_shown_nowhere() -> None:
    # An address of MLflow may hold a password, and is no secret where it holds none.
    assert secrets(Settings) == {*SECRETS, "mlflow_tracking_uri"}


@pytest.mark.parametrize(
    ("url", "password", "wanted"),
    [
        ("postgresql+psycopg://me@host/db", "p@:/", "postgresql+psycopg://me:p%40%3A%2F@host/db"),
        ("postgresql+psycopg://me:own@host/db", "other", "postgresql+psycopg://me:own@host/db"),
        ("postgresql+psycopg://host/db", "unused", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://me@host/db", None, "postgresql+psycopg://me@host/db"),
    ],
)
def test_the_password_of_the_store_goes_into_an_address_that_has_a_user_and_none(
    url: str, password: str | None, wanted: str
) -> None:
    assert Settings(_env_file=None, database_url=url, database_password=password).store_url == wanted
    if password and "@" in wanted and password != "other":
        assert parse(wanted).password == ("p@:/" if "%40" in wanted else None)


@pytest.mark.parametrize("wrong", ["nonsense//me:hidden-1@host/db", "mysql://me:hidden-1@host/db"])
def test_an_address_that_cannot_be_used_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(wrong)
    assert "hidden-1" not in str(refused.value)
