"""What a name of a source stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cancellations.bootstrap import left_alone, locators, open_source
from cancellations.errors import BadInput
from cancellations.settings import Settings
from cancellations.sources.simulator import Simulator


def test_a_folder_stands_for_its_tables_in_order_and_not_for_what_is_being_copied(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", "c.csv.gz", "D.CSV", "e.tsv", ".f.csv", "notes.txt", "mapping.toml"):
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()
    names = [Path(found).name for found in locators(str(tmp_path), Settings())]
    assert names == ["D.CSV", "a.parquet", "b.csv", "c.csv.gz", "e.tsv"]
    assert left_alone(str(tmp_path), Settings()) == ["folder.csv", "notes.txt"]
    assert left_alone(str(tmp_path / "b.csv"), Settings()) == left_alone("simulator", Settings()) == []


def test_nothing_stands_for_the_watched_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert locators(None, Settings(watch=tmp_path)) == [str(tmp_path / "a.csv")]
    with pytest.raises(BadInput, match="CANCELLATIONS_WATCH"):
        locators(None, Settings(watch=None))


def test_the_simulator_and_a_file_stand_for_themselves() -> None:
    assert locators("simulator", Settings()) == ["simulator"]
    assert isinstance(open_source("simulator", Settings()), Simulator)
    [missing] = locators("nowhere.csv", Settings())
    with pytest.raises(BadInput, match=r"no file nowhere\.csv"):
        open_source(missing, Settings())


def test_the_mapping_is_the_one_given_or_the_settings_or_the_one_beside_the_file(tmp_path: Path) -> None:
    fields = "\n".join(f'{name} = "id"' for name in ("reservation_id", "hotel", "booked_on", "arrival_on", "adults"))
    for name in ("given", "set", "mapping"):
        (tmp_path / f"{name}.toml").write_text(f'format = 1\nname = "{name}"\n[reservation]\n{fields}\nnights = "id"')
    table = tmp_path / "table.csv"
    table.write_text("id\n1\n")
    known = Settings(mapping=tmp_path / "set.toml")
    assert open_source(str(table), known, tmp_path / "given.toml").name == "given"
    assert open_source(str(table), known).name == "set"
    assert open_source(str(table), Settings(mapping=None)).name == "mapping"
