"""A local SMTP server that writes each message as an `.eml` file, for a laptop without a mail server.

    python -m deployments.mailbox --host 127.0.0.1 --port 1025 --folder outbox

It delivers nothing to anybody. Exit codes: 0 stopped by SIGTERM or SIGINT, 2 the folder cannot be
used, 3 the port cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import unicodedata
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from cancellations.errors import BadInput, CancellationsError, ServiceDown


class Folder:
    """Handler of aiosmtpd that keeps each message once, as `<UTC timestamp>-<slug of subject>.eml`.

    A Message-ID that the folder already has is accepted again and not written: whoever sends at
    least once gets one file. Raises `BadInput` when the folder cannot be made, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            self._seen = {_headers(p.read_bytes())["Message-ID"] for p in path.glob("*.eml")}
        except OSError as error:
            raise BadInput(
                f"mails cannot be kept in {path}: {error.strerror}. Choose a folder that you can write with --folder."
            ) from error

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)  # the server is not asked to decode
        headers = _headers(content)
        identity = headers["Message-ID"]
        if identity is not None and identity in self._seen:
            return "250 OK, kept already"
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{slug(headers['Subject'] or '')}.eml"
        partial = self.path / f".{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        except OSError as error:
            partial.unlink(missing_ok=True)
            return f"452 the message cannot be kept: {error.strerror}"
        self._seen.add(identity)
        return f"250 OK, kept as {name}"


def slug(subject: str) -> str:
    """Lower-case ASCII words of a subject joined by hyphens, fit for a file name on any system."""
    plain = unicodedata.normalize("NFKD", subject).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:80].strip("-") or "mail"


def _headers(content: bytes) -> EmailMessage:
    return BytesParser(policy=default).parsebytes(content, headersonly=True)


async def serve(host: str, port: int, folder: Folder) -> None:
    """Receives until SIGTERM or SIGINT; raises `ServiceDown` when the port cannot be opened."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        # Without a hostname aiosmtpd asks the DNS for one, for each connection.
        server = await loop.create_server(lambda: SMTP(folder, hostname="localhost", loop=loop), host, port)
    except OSError as error:
        raise ServiceDown(
            f"mailbox: cannot listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}."
            " Stop the program that holds the port, or choose another with --port."
        ) from error
    print(f"mailbox ready: smtp {host}:{server.sockets[0].getsockname()[1]}, mails in {folder.path}", flush=True)
    await stop.wait()
    server.close()


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError
    return port


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "deployments.mailbox", description="Writes each mail that it gets as an .eml file."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=1025, help="0 lets the system choose (default: %(default)s)")
    parser.add_argument("--folder", type=Path, required=True, help="where the mails go; made when it is not there")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(serve(options.host, options.port, Folder(options.folder)))
    except CancellationsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
