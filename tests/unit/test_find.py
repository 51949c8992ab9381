"""The first source that can be had is taken, one line says which, and a bad download is not kept."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cancellations.errors import BadInput
from cancellations.ports import Source
from cancellations.settings import load
from cancellations.sources.find import NEARBY, find, simulated
from cancellations.sources.mapped import MappedTable, packaged
from cancellations.sources.simulator import Simulator

VALUES = {
    **dict.fromkeys(packaged()["hotel_bookings"].source_columns, "1"),
    "hotel": "City Hotel",
    "arrival_date_month": "March",
    "arrival_date_year": "2016",
    "reservation_status": "Check-Out",
    "reservation_status_date": "2016-03-14",
}
ROW = ",".join(VALUES.values()) + "\n"
TABLE = (",".join(VALUES) + "\n" + ROW).encode()
CHECKSUM = hashlib.sha256(TABLE).hexdigest()


@dataclass
class Web:
    """A server on loopback: what it sends, and how often it was asked."""

    body: bytes = TABLE
    status: int = 200
    promised: int | None = None  # Content-Length, when it is not the body's
    address: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    told = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(told.body) if told.promised is None else told.promised))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: test output is for tests."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        told.address = f"http://127.0.0.1:{server.server_address[1]}/bookings.csv"
        yield told
        server.shutdown()
        thread.join()


@dataclass
class Search:
    """A machine where nothing is found but what the test puts there."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def __call__(self, data: Path | None = None, *, max_lead_days: int | None = None, **public: Any) -> Source:
        self.lines.clear()
        given = {"cache": self.cache, "sha256": CHECKSUM, "timeout_seconds": 5.0} | public
        settings = load(public_data=given, max_lead_days=max_lead_days)
        return find(data, settings, self.lines.append, folders=[self.folder / "project"])

    @property
    def line(self) -> str:
        assert len(self.lines) == 1
        return self.lines[0]

    def kept(self) -> list[bytes]:
        return [p.read_bytes() for p in self.cache.iterdir()] if self.cache.exists() else []


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.chdir(tmp_path)  # no .env of the project
    (tmp_path / "project").mkdir()
    return Search(tmp_path)


def test_a_given_file_comes_first(search: Search, web: Web, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(TABLE)
    source = search(path, url=web.address)
    assert isinstance(source, MappedTable)
    assert source.place == str(path)
    assert search.line == f"data: {path} (as given)"
    assert web.asked == []


def test_a_given_file_that_is_missing_is_an_error_and_no_reason_to_look_elsewhere(search: Search, web: Web) -> None:
    with pytest.raises(BadInput, match=r"there is no file .*nowhere\.csv"):
        search(Path("nowhere.csv"), url=web.address)
    assert (search.lines, web.asked) == ([], [])


def test_a_file_beside_the_project_comes_before_a_download(search: Search, web: Web, tmp_path: Path) -> None:
    nearby = (tmp_path / "project" / NEARBY).resolve()
    nearby.parent.mkdir(parents=True)
    nearby.write_bytes(TABLE)
    source = search(url=web.address, max_lead_days=180)
    assert isinstance(source, MappedTable)
    assert source.place == str(nearby)
    assert search.line == f"data: {nearby} (found beside the project, at most 180 days of lead)"
    assert web.asked == []


def test_a_download_is_kept_in_the_cache_and_not_fetched_again(search: Search, web: Web) -> None:
    first = search(url=web.address)
    assert f"downloaded from {web.address}" in search.line
    second = search(url=web.address)
    assert "from the cache" in search.line
    assert isinstance(first, MappedTable)
    assert isinstance(second, MappedTable)
    assert first.place == second.place
    assert search.kept() == [TABLE]
    assert web.asked == ["/bookings.csv"]


def test_the_cache_serves_offline_and_with_downloads_off(search: Search, web: Web) -> None:
    search(url=web.address)
    assert isinstance(search(url="http://127.0.0.1:9/", download=False), MappedTable)
    assert "from the cache" in search.line


def test_a_damaged_cache_is_downloaded_again(search: Search, web: Web) -> None:
    source = search(url=web.address)
    assert isinstance(source, MappedTable)
    Path(source.place).write_bytes(TABLE[:-30])
    search(url=web.address)
    assert "downloaded" in search.line
    assert search.kept() == [TABLE]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(search: Search, web: Web) -> None:
    web.body = TABLE + ROW.encode()
    with pytest.raises(BadInput, match=f"expected {CHECKSUM}"):
        search(url=web.address)
    assert search.kept() == []
    assert search.lines == []


def test_a_cut_transfer_leads_to_the_simulator_and_nothing_is_kept(search: Search, web: Web) -> None:
    web.body, web.promised = TABLE[:400], len(TABLE)
    assert isinstance(search(url=web.address), Simulator)
    assert "cannot be reached" in search.line
    assert search.kept() == []


def test_a_refused_connection_leads_to_the_simulator(search: Search) -> None:
    with closing(socket.socket()) as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        source = search(url=f"http://127.0.0.1:{taken.getsockname()[1]}/bookings.csv")
    assert isinstance(source, Simulator)
    assert search.line.startswith(f"data: {simulated(None).name}, because no file is there and 127.0.0.1")
    assert "cannot be reached" in search.line


def test_a_server_that_never_answers_leads_to_the_simulator(search: Search) -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/bookings.csv"
        assert isinstance(search(url=url, timeout_seconds=0.2), Simulator)
    assert "cannot be reached" in search.line


def test_an_address_that_has_moved_away_leads_to_the_simulator(search: Search, web: Web) -> None:
    web.status = 404
    assert isinstance(search(url=web.address), Simulator)
    assert "answered 404" in search.line
    assert search.kept() == []


def test_downloads_can_be_switched_off(search: Search, web: Web) -> None:
    assert isinstance(search(url=web.address, download=False), Simulator)
    assert search.line.endswith("because no file is there and downloads are switched off")
    assert web.asked == []


@pytest.mark.parametrize("missing", [{"url": ""}, {"sha256": ""}])
def test_nothing_is_downloaded_without_address_and_checksum(search: Search, web: Web, missing: dict[str, Any]) -> None:
    assert isinstance(search(None, **({"url": web.address} | missing)), Simulator)
    assert web.asked == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/bookings.csv", "bookings.csv", "http://[::1"])
def test_an_address_that_is_none_is_refused(search: Search, url: str) -> None:
    with pytest.raises(BadInput, match="CANCELLATIONS_PUBLIC_DATA__URL"):
        search(url=url)
    assert search.kept() == []


def test_a_cache_that_cannot_be_written_is_refused(search: Search, web: Web) -> None:
    search.cache.write_text("a file where the folder should be")
    with pytest.raises(BadInput, match="CANCELLATIONS_PUBLIC_DATA__CACHE"):
        search(url=web.address)


def test_the_pinned_address_names_a_commit_and_a_checksum() -> None:
    public = load().public_data
    assert len(public.sha256) == 64
    assert any(len(part) == 40 for part in public.url.split("/"))
