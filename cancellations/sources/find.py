"""The search for reservations: a given file, one nearby, the cache, a download, the simulator."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import httpx

from cancellations.errors import BadInput
from cancellations.settings import PublicData, Settings
from cancellations.sources.mapped import MappedTable, open_table
from cancellations.sources.simulator import Drift, DriftKind, Simulator

# How the simulated world is named where a path would stand.
SIMULATOR = "simulator"
NEARBY = Path("../shared/data/hotel_bookings.parquet")
PROJECT = Path(__file__).resolve().parents[2]

# The simulated world: booked when the public file's were. From its thirty-fifth week on guests book later,
# more of them online, and online guests cancel more easily, so that there is something to find.
SIMULATED_FROM, SIMULATED_DAYS, SIMULATOR_SEED = date(2015, 10, 5), 511, 20
CHANGE = date(2016, 5, 30)
SIMULATED_DRIFTS = (
    Drift(DriftKind.FREE_CANCELLATION, CHANGE, 4.0),
    Drift(DriftKind.LEAD_TIME_SHIFT, CHANGE, 0.4),
    Drift(DriftKind.CHANNEL_MIX, CHANGE, 4.0),
)


def find(
    data: Path | None,
    settings: Settings,
    say: Callable[[str], None],
    folders: Sequence[Path] | None = None,
) -> MappedTable | Simulator:
    """The first source that can be had, and one line to `say` that tells which and why.

    In this order: `data`; `../shared/data/hotel_bookings.parquet` seen from one of `folders` (the
    working folder and the project's own); the user's cache; a download into it; the simulator.
    Raises `BadInput` when a file that was given or found cannot be used, when the download has
    another checksum than the settings, or when the cache cannot be written.
    """
    if data is not None:
        return _file(data, settings, "as given", say)
    for folder in (Path.cwd(), PROJECT) if folders is None else folders:
        if (folder / NEARBY).is_file():
            return _file((folder / NEARBY).resolve(), settings, "found beside the project", say)
    public = settings.public_data
    kept = public.cache.expanduser() / f"hotel_bookings-{public.sha256[:12]}.csv"
    if public.sha256 and _has_checksum(kept, public.sha256):
        return _file(kept, settings, "from the cache, its checksum is right", say)
    if not public.download:
        return _simulator(settings, "no file is there and downloads are switched off", say)
    if not (public.url and public.sha256):
        return _simulator(settings, "no file is there and no address with checksum is set to download one", say)
    try:
        _download(public, kept)
    except httpx.RequestError as error:
        return _simulator(
            settings, f"no file is there and {httpx.URL(public.url).host} cannot be reached ({_told(error)})", say
        )
    except httpx.HTTPStatusError as error:
        return _simulator(
            settings, f"no file is there and {httpx.URL(public.url).host} answered {error.response.status_code}", say
        )
    return _file(kept, settings, f"downloaded from {public.url}, its checksum is right", say)


def _file(path: Path, settings: Settings, why: str, say: Callable[[str], None]) -> MappedTable:
    source = open_table(path, settings.mapping)
    limit = "" if settings.max_lead_days is None else f", at most {settings.max_lead_days} days of lead"
    say(f"data: {path} ({why}{limit})")
    return source


def simulated(max_lead_days: int | None) -> Simulator:
    """The simulated world, always the same one."""
    return Simulator(SIMULATED_FROM, SIMULATED_DAYS, SIMULATOR_SEED, SIMULATED_DRIFTS, max_lead_days=max_lead_days)


def _simulator(settings: Settings, why: str, say: Callable[[str], None]) -> Simulator:
    source = simulated(settings.max_lead_days)
    say(f"data: {source.name}, because {why}")
    return source


def _has_checksum(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _download(public: PublicData, target: Path) -> None:
    """Writes `target` whole and right, or not at all."""
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".download-", delete=False) as file:
            part = Path(file.name)
            checksum = hashlib.sha256()
            with httpx.stream("GET", public.url, timeout=public.timeout_seconds, follow_redirects=True) as response:
                response.raise_for_status()
                for piece in response.iter_bytes():
                    checksum.update(piece)
                    file.write(piece)
        if checksum.hexdigest() != public.sha256:
            raise BadInput(
                f"{public.url} has the checksum {checksum.hexdigest()}, expected {public.sha256}: it is another file"
                " or was damaged, and was not kept. Try again, give a file by its path, or set"
                " CANCELLATIONS_PUBLIC_DATA__URL and CANCELLATIONS_PUBLIC_DATA__SHA256."
            )
        part.replace(target)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise BadInput(f"{public.url!r} is no address: {error}. Set CANCELLATIONS_PUBLIC_DATA__URL.") from error
    except OSError as error:
        raise BadInput(
            f"the download cannot be kept in {target.parent}: {error.strerror or error}."
            " Set CANCELLATIONS_PUBLIC_DATA__CACHE to a folder that can be written,"
            " or CANCELLATIONS_PUBLIC_DATA__DOWNLOAD=false."
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
