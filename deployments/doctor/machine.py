"""This machine, looked over: room on its disks, folders, and the packages that are installed."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cancellations.domain.health import GIB, Finding, Verdict, of_space
from cancellations.settings import Settings
from deployments.doctor.checks import Check
from flows.version import PROJECT

INSTALL = "make setup, or: pip install --require-hashes -r requirements.lock"
# More than a file system's block, so that it has to find room.
WRITTEN = b"\0" * 65_536


@dataclass(frozen=True)
class Machine:
    """The checks of this machine; `project` is the folder whose pyproject.toml says what fits together."""

    settings: Settings
    project: Path = PROJECT

    def checks(self) -> list[Check]:
        return [
            Check("disk", str(self.settings.home.absolute()), self._disks),
            Check("folders", str(self.settings.home.absolute()), self._folders),
            Check("packages", sys.prefix, self._packages, INSTALL),
        ]

    def _disks(self) -> Iterator[Finding]:
        """Each file system once."""
        least, seen = self.settings.doctor.least_free_gib * GIB, set()
        for place in self._places():
            if not place.is_dir() or (device := place.stat().st_dev) in seen:
                continue
            seen.add(device)
            usage = shutil.disk_usage(place)
            yield of_space(str(place), usage.free, usage.total, least)

    def _folders(self) -> Iterator[Finding]:
        for place in self._places():
            if (problem := _unwritable(place)) is not None:
                mend = f"make it, and give this user the right to write: install -d -o $(id -un) {place}"
                yield Finding("folders", str(place), Verdict.WRONG, problem, mend)
            else:
                yield Finding("folders", str(place), Verdict.RIGHT, "writable")
        watched = self.settings.watch
        if watched is not None and not watched.is_dir():
            mend = f"mkdir -p {watched}, or correct CANCELLATIONS_WATCH"
            yield Finding("folders", str(watched), Verdict.WRONG, "the watched folder is not there", mend)
        elif watched is not None:
            yield Finding("folders", str(watched), Verdict.RIGHT, "watched")

    def _places(self) -> list[Path]:
        """Home and, where they lie on this machine elsewhere, artifacts."""
        home, root = self.settings.home.absolute(), self.settings.artifact_root
        artifacts = _path(root) if root is not None else None
        return [home, *([artifacts] if artifacts is not None else [])]

    def _packages(self) -> Iterator[Finding]:
        wrong = 0
        wanted, python = _constraints(self.project)
        if not python.contains(_python()):
            wrong += 1
            yield Finding("packages", "python", Verdict.WRONG, f"{_python()}, supported is {python}", INSTALL)
        for requirement in wanted:
            found = _installed(requirement.name)
            if found is not None and requirement.specifier.contains(found, prereleases=True):
                continue
            wrong += 1
            what = f"{found or 'not installed'}, supported is {requirement.specifier}"
            yield Finding("packages", requirement.name, Verdict.WRONG, what, INSTALL)
        if not wrong:
            told = f"{len(wanted)} packages and Python {_python()} are as this version supports them"
            yield Finding("packages", sys.prefix, Verdict.RIGHT, told)


def _unwritable(place: Path) -> str | None:
    """Why a folder cannot be written; None when a file without a name could be."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(WRITTEN)
            file.flush()
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return None


def _path(root: str) -> Path | None:
    """The local folder that an artifact root names; None for one elsewhere."""
    parts = urlsplit(root)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path) if parts.scheme else root).absolute()


def _constraints(project: Path) -> tuple[list[Requirement], SpecifierSet]:
    """What a checkout's pyproject.toml asks for, else what the installed package does."""
    file = project / "pyproject.toml"
    if file.is_file():
        told = tomllib.loads(file.read_text())["project"]
        return [Requirement(line) for line in told["dependencies"]], SpecifierSet(told["requires-python"])
    metadata = importlib.metadata.metadata("cancellations")
    lines = importlib.metadata.requires("cancellations") or []
    return [Requirement(line) for line in lines], SpecifierSet(metadata["Requires-Python"])


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))
