from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cancellations import home as homes
from cancellations.errors import BadInput, Refused


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    homes.prepare(home)
    (home / "outbox" / "mail.eml").write_text("kept")
    before = sorted(home.rglob("*"))
    homes.prepare(home)
    assert sorted(home.rglob("*")) == before
    assert {p.name for p in home.iterdir()} == {homes.MARKER, *homes.FOLDERS}


def test_a_missing_subfolder_comes_back(tmp_path: Path) -> None:
    homes.prepare(tmp_path)
    (tmp_path / "logs").rmdir()
    homes.prepare(tmp_path)
    assert (tmp_path / "logs").is_dir()


@pytest.mark.parametrize("touch", [homes.prepare, homes.fresh])
def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path, touch: object) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"has no home\.json.*untouched"):
        touch(tmp_path)  # type: ignore[operator]
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for home in (file, file / "home"):
        with pytest.raises(BadInput, match=f"{home} cannot be used as home"):
            homes.prepare(home)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_named(tmp_path: Path) -> None:
    homes.prepare(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput, match="Permission denied"):
            homes.prepare(tmp_path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        (json.dumps({"format": homes.FORMAT + 1}), "a newer version"),
        (json.dumps({"format": homes.FORMAT - 1}), "an earlier version"),
        (json.dumps({"format": "one"}), "cannot be read"),
        (json.dumps([]), "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_home_of_another_format_is_refused_and_kept(tmp_path: Path, marker: str, told: str) -> None:
    (tmp_path / homes.MARKER).write_text(marker)
    (tmp_path / "cancellations.db").touch()
    for touch in (homes.prepare, homes.fresh):
        with pytest.raises(BadInput, match=told):
            touch(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {homes.MARKER, "cancellations.db"}


def test_fresh_empties_a_home_and_follows_no_link_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    home = tmp_path / "home"
    homes.prepare(home)
    (home / "artifacts" / "1").mkdir()
    (home / "cancellations.db").touch()
    (home / "link").symlink_to(outside)
    homes.fresh(home)
    assert {str(p.relative_to(home)) for p in home.rglob("*")} == {homes.MARKER, *homes.FOLDERS}
    assert (outside / "file").is_file()


def test_a_locked_home_tells_who_holds_it(tmp_path: Path) -> None:
    homes.prepare(tmp_path)
    with homes.lock(tmp_path):
        homes.fresh(tmp_path)
        with pytest.raises(Refused, match=f"in use by process {os.getpid()}; .* --home OTHER"), homes.lock(tmp_path):
            pass
    with homes.lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    homes.prepare(tmp_path)
    script = (
        "import sys, pathlib; from cancellations import home\n"
        "with home.lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(homes.__file__).parents[1],
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match=f"process {holder.pid}"), homes.lock(tmp_path):
            pass
        holder.kill()
    with homes.lock(tmp_path):
        pass
