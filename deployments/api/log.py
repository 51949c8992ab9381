"""Lines of a log: for people on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from deployments.console import harmless

LOGGER = logging.getLogger("cancellations.api")
FACTS = "facts"


def log(level: int, event: str, error: BaseException | None = None, **facts: Any) -> None:
    """A line about one thing that happened, with its facts; an unforeseen error brings its traceback."""
    LOGGER.log(level, event, exc_info=error, extra={FACTS: facts})


class Lines(logging.Formatter):
    """JSON objects."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, FACTS, {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class Words(logging.Formatter):
    """The same for a person."""

    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value}" for name, value in getattr(record, FACTS, {}).items())
        line = f"{datetime.fromtimestamp(record.created):%H:%M:%S} {record.getMessage()} {facts}"  # noqa: DTZ006 (the reader's own clock)
        traceback = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return harmless(line.rstrip()) + traceback


def to(stream: TextIO = sys.stderr) -> None:
    """From now on the API and the server under it log to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Words() if stream.isatty() else Lines())
    for name, level in ((LOGGER.name, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
