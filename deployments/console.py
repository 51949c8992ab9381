"""How commands speak: live on a terminal, plain lines elsewhere, one JSON object when asked."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

# Stories and tables are written for this width, on a terminal and in a file alike.
WIDTH = 100
LABEL = 12


class Voice:
    """Tells a person what happens. Lines that are told stay; the one in work is shown live."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self._began = time.monotonic()

    def say(self, line: str, style: str = "") -> None:
        self.console.print(Text(harmless(line), style=style))

    def heading(self, line: str) -> None:
        self.say(f"\n{line}", "bold")

    def fact(self, name: str, *lines: str, style: str = "") -> None:
        """Something by its name, in a column of its own; further lines stand below the first."""
        for number, line in enumerate(lines):
            self.say(f"{'' if number else name:<{LABEL}} {line}", style)

    def tell(self, text: str, indent: str = "", style: str = "") -> None:
        """A sentence of any length, on as many lines as it takes."""
        for line in wrapped(text, indent):
            self.say(line, style)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Shows `what` with a spinner while the body runs; elsewhere than on a terminal nothing."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(Text(what)):
            yield

    def elapsed(self) -> float:
        """Seconds since this voice began."""
        return time.monotonic() - self._began


def wrapped(text: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """A sentence on lines that a page can hold; those after the first stand deeper."""
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_line(text: object) -> str:
    """A name for a place in a table, whatever breaks of line it holds."""
    return " ".join(str(text).split())


def harmless(text: str) -> str:
    """Text that cannot steer a terminal: names, reasons and ids were written by somebody else."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def plain(value: Any) -> Any:
    """Dataclasses, dates and enums, wherever they are in a value, as JSON can hold them."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def print_json(value: Any) -> None:
    """One object on standard output, for programs."""
    json.dump(plain(value), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
