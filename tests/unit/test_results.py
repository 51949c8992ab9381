"""The page of results and the README say what the last benchmarks found, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.figures import Figure
from benchmarks.found import Found, read
from benchmarks.page import DOCS, README, in_readme, interval, met, pages, short
from benchmarks.parts import PARTS
from benchmarks.pictures import PICTURES
from cancellations.errors import BadInput


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    return read()


def changed(one: Found, name: str) -> Found:
    """With another value of one figure."""
    figures = [
        asdict(f if f.name != name else replace(f, value=f.value + 1, low=f.low, high=f.high + 1)) for f in one.figures
    ]
    return Found(one.name, one.told | {"figures": figures})


def test_pages_are_what_the_last_results_say(found: dict[str, Found]) -> None:
    for name, text in pages(found).items():
        assert (DOCS / name).read_text() == text, "run: python -m benchmarks.everything --page"


def test_figures_of_the_readme_are_those_of_the_last_results(found: dict[str, Found]) -> None:
    text = README.read_text()
    assert in_readme(text, short(found)) == text, "run: python -m benchmarks.everything --page"


def test_another_figure_is_another_readme(found: dict[str, Found]) -> None:
    other = found | {"monitor": changed(found["monitor"], "all strong changes: decision, within four weeks")}
    assert in_readme(README.read_text(), short(other)) != README.read_text()
    assert pages(other)["results.md"] != pages(found)["results.md"]


def test_what_is_kept_is_of_whole_runs_and_each_figure_has_a_name_of_its_own(found: dict[str, Found]) -> None:
    assert found and set(found) <= {part.name for part in PARTS}
    assert [name for name, one in found.items() if one.told["quick"]] == []
    for one in found.values():
        names = [figure.name for figure in one.figures]
        assert len(names) == len(set(names)), one.name


def test_pictures_are_there_of_what_was_measured(found: dict[str, Found]) -> None:
    for name, (of, _) in PICTURES.items():
        assert (DOCS / "pictures" / name).exists() == (of in found)


def test_results_name_no_folder_of_a_machine(found: dict[str, Found]) -> None:
    for one in found.values():
        assert "/home/" not in json.dumps(one.told)
        assert str(Path.cwd()) not in json.dumps(one.told)


def figure(name: str, value: float = 1.0) -> Figure:
    return Figure(name, value, value, value, "s", "<= 2", value <= 2)


def test_a_name_that_none_or_several_figures_have_stops_the_page() -> None:
    one = Found("way", {"figures": [asdict(figure(name)) for name in ("way, there", "way, back")], "curves": []})
    assert one.figure("way, there").value == 1
    for pattern, count in (("way", 0), ("way, .*", 2)):
        with pytest.raises(BadInput, match=f"results of way: {count} figures are named"):
            one.figure(pattern)
    assert len(one.having("way, .*")) == 2


def test_a_readme_without_its_markers_is_refused() -> None:
    with pytest.raises(BadInput, match="lacks the lines"):
        in_readme("# cancellations\n", "figures")


def test_results_that_are_no_json_say_which_to_run_again(tmp_path: Path) -> None:
    (tmp_path / "way.json").write_text("{")
    with pytest.raises(BadInput, match=r"way\.json is no JSON.*--only way"):
        read(tmp_path)


def test_an_interval_is_told_where_there_is_one() -> None:
    assert interval(figure("a", 1.234)) == "1.23"
    assert interval(Figure("a", 1.0, 0.5, 2.0, "s")) == "1 (0.5 to 2)"
    assert met(figure("a", 3.0)) == "<= 2, **missed**"
    assert met(figure("a", 2.0)) == "<= 2, met"
