"""Artifacts that would run somebody's code: refused without running it, and the champion stays."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from contest import candidate, day
from world import World

from cancellations.errors import BadInput, Refused


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def as_pickle(folder: Path, trap: bytes) -> None:
    (folder / "model.skops").unlink()
    (folder / "model.pkl").write_bytes(trap)


def under_the_name(folder: Path, trap: bytes) -> None:
    (folder / "model.skops").write_bytes(trap)


def as_code_beside(folder: Path, trap: bytes) -> None:
    """Code that MLflow's own loader would import, beside a model that lacks its file."""
    (folder / "model.skops").unlink()
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "sitecustomize.py").write_text(f"import pickle; pickle.loads({trap!r})")


@pytest.mark.parametrize("harm", [as_pickle, under_the_name, as_code_beside])
def test_a_pickle_in_an_artifact_is_refused_and_never_opened(
    contest: World, tmp_path: Path, harm: Callable[[Path, bytes], None]
) -> None:
    mark = tmp_path / "it-ran"
    trap = pickle.dumps(Trap(mark))
    version = contest.registry.register(candidate("foreign", seed=9)).version
    own = Path(mlflow.artifacts.download_artifacts(f"models:/cancellations/{version}"))
    kept = shutil.copytree(own, tmp_path / "kept")
    try:
        harm(own, trap)
        with pytest.raises(BadInput, match=f"version {version} (cannot be read|is not loaded)|has no model.skops"):
            contest.registry.load(version, fresh=True)
        with pytest.raises(Refused, match=rf"version {version} cannot take over: .*Champion 1 stays"):
            contest.promote(version, day(2))
        assert not mark.exists()
    finally:
        shutil.rmtree(own)
        kept.rename(own)
    assert contest.standing().champion == "1"
    # The trap is one: whoever opens it makes the folder.
    pickle.loads(trap)
    assert mark.is_dir()
