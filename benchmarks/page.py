"""The page of results, the README's short form of it and their pictures, from what benchmarks last found.

What they found lies in `results`, a JSON each. Words are those of the templates, figures are looked up by name, and a
name that nothing or more than one thing has stops the page: no figure is typed.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.figures import Figure, number
from benchmarks.found import Found, read
from benchmarks.parts import PARTS
from benchmarks.pictures import PICTURES, SPEED_UNITS
from cancellations.errors import BadInput

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- results: python -m benchmarks.everything --page -->", "<!-- end of results -->"


def interval(figure: Figure) -> str:
    """A value with the ends of its interval, three figures each; alone where they are one."""
    if figure.low == figure.high:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def met(figure: Figure) -> str:
    """Its reach, and whether it is met."""
    return f"{figure.reach}, {'met' if figure.holds else '**missed**'}"


def pages(found: dict[str, Found]) -> dict[str, str]:
    """Pages by their name in docs."""
    return {name: _template(f"{name}.j2", found) for name in ("results.md", "results-speed.md")}


def short(found: dict[str, Found]) -> str:
    """What stands between the README's markers."""
    return f"{BEGIN}\n\n{_template('readme.md.j2', found).strip()}\n\n{END}"


def in_readme(text: str, part: str) -> str:
    """The README with its part of results in the place of the one before."""
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise BadInput(f"README.md lacks the lines {BEGIN} and {END}, between which results stand")
    return text[:begin] + part + text[end + len(END) :]


def write() -> list[Path]:
    """Writes page, README and pictures; returns what was written."""
    found = read()
    written = [README]
    README.write_text(in_readme(README.read_text(), short(found)))
    for name, text in pages(found).items():
        (DOCS / name).write_text(text)
        written.append(DOCS / name)
    for name, (of, draw) in PICTURES.items():
        if of in found:
            (DOCS / "pictures" / name).write_bytes(draw(found))
            written.append(DOCS / "pictures" / name)
    return written


def _template(name: str, found: dict[str, Found]) -> str:
    files = FileSystemLoader(HERE / "templates")
    # Markdown in a repository of ours, of our own figures: nothing to escape.
    environment = Environment(loader=files, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": interval, "met": met, "number": number}
    last = max((one.told for one in found.values()), key=lambda told: told["date"])
    missing = [part.name for part in PARTS if part.name not in found]
    given = {"found": found, "last": last, "missing": missing, "units": SPEED_UNITS, **found}
    return environment.get_template(name).render(given).rstrip() + "\n"
