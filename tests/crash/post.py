"""Where messages of all worlds arrive: a mail server, and Prefect's event endpoint as our doorbell rings it.

Each world has a folder, by whose name it is addressed, and in which what arrived is written down before it is
answered: `mails`, `events`, and `runs` that reconcile has started. Both servers refuse while `refusing` is there.
"""

from __future__ import annotations

import asyncio
import json
import threading
from email.parser import BytesHeaderParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from act import lines
from aiosmtpd.smtp import SMTP, Envelope, Session

from cancellations.errors import ServiceDown
from cancellations.mail.smtp import SmtpMailer
from cancellations.settings import Mail
from flows.doorbell import PrefectDoorbell

HOST = "127.0.0.1"
PORTS, REFUSING = "ports", "refusing"


class Post:
    """Both servers, in threads of this process, for the worlds whose folders lie in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._events = ThreadingHTTPServer((HOST, 0), type("Events", (_Events,), {"root": root}))
        threading.Thread(target=self._events.serve_forever, name="events").start()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mails").start()
        self._mails = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> asyncio.Server:
        handler = _Mails(self._root)
        # Without a hostname aiosmtpd asks the DNS for one, for each connection.
        return await self._loop.create_server(lambda: SMTP(handler, hostname="localhost", loop=self._loop), HOST, 0)

    def found_at(self, outside: Path) -> None:
        """Tells a world where the servers are."""
        (outside / PORTS).write_text(json.dumps([self._mails.sockets[0].getsockname()[1], self._events.server_port]))

    def close(self) -> None:
        self._events.shutdown()
        self._events.server_close()
        self._loop.call_soon_threadsafe(self._mails.close)
        self._loop.call_soon_threadsafe(self._loop.stop)


def mailer(outside: Path) -> SmtpMailer:
    """The way of a world's mails."""
    smtp, _ = json.loads((outside / PORTS).read_text())
    return SmtpMailer(Mail(host=HOST, port=smtp, timeout_seconds=10.0, owners=[f"{outside.name}@hotel.example"]))


def doorbell(outside: Path) -> Bell:
    _, events = json.loads((outside / PORTS).read_text())
    return Bell(f"http://{HOST}:{events}/{outside.name}/api")


class Bell(PrefectDoorbell):
    """Rings as the product does; a run is asked for in short, since no Prefect is there to make one."""

    def __init__(self, api: str) -> None:
        self._api, self._headers = api, {}

    def start_retrain(self, request_id: str, attempt: int) -> str:
        try:
            asked = {"request_id": request_id, "attempt": attempt}
            httpx.post(f"{self._address()}/runs", json=asked).raise_for_status()
        except httpx.HTTPError as error:
            raise ServiceDown(f"no run of {request_id} was started: {error!r}") from error
        return f"{request_id}:{attempt}"


def rung(outside: Path) -> list[str]:
    """Requests whose retrain was started, by the automation that heard the event or by reconcile; each once."""
    events = [json.loads(line)["payload"] for line in lines(outside / "events")]
    asked = [*events, *(json.loads(line) for line in lines(outside / "runs"))]
    return list(dict.fromkeys(one["request_id"] for one in asked if "request_id" in one))


class _Mails:
    def __init__(self, root: Path) -> None:
        self._root = root

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        outside = self._root / envelope.rcpt_tos[0].partition("@")[0]
        if (outside / REFUSING).exists():
            return "451 come again later"
        headers = BytesHeaderParser().parsebytes(envelope.content)
        mail = {"id": headers["Message-ID"].strip("<>").partition("@")[0], "topic": headers["X-Cancellations-Topic"]}
        _write(outside / "mails", mail)
        return "250 OK"


class _Events(BaseHTTPRequestHandler):
    root: Path

    def do_POST(self) -> None:
        _, world, _, kind = self.path.split("/")
        outside = self.root / world
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refusing = (outside / REFUSING).exists()
        if not refusing:
            for one in sent if isinstance(sent, list) else [sent]:
                _write(outside / kind, one)
        self.send_response(503 if refusing else 204)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""


def _write(file: Path, what: dict[str, Any]) -> None:
    with file.open("a") as kept:
        kept.write(f"{json.dumps(what)}\n")
