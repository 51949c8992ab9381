"""The picture of the coming nights can be drawn of whatever a hotel is called and whatever is known of it."""

from __future__ import annotations

import struct
import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest

from monitoring.plots import ReportPictures

TODAY = date(2016, 6, 1)


def nights(hotel: str, count: int = 60, **cells: float) -> pd.DataFrame:
    known = {"on_books": 80, "expected": 9.5, "expected_low": 4.0, "expected_high": 15.0, "unpriced": 0}
    money = {"revenue_on_books": 8_000.0, "at_risk": 950.0, "at_risk_low": 400.0, "at_risk_high": 1_500.0}
    days = pd.date_range(TODAY, periods=count)
    return pd.DataFrame({"hotel": hotel, "night": days}).assign(**(known | money | cells))


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize(
    "table",
    [
        nights("H"),
        nights("A $x^2\nhotel_{1} <b>&</b> with a name that is longer than any picture is wide", count=14),
        nights(
            "unpriced", revenue_on_books=np.nan, at_risk=np.nan, at_risk_low=np.nan, at_risk_high=np.nan, unpriced=80
        ),
        nights("empty", on_books=0, expected=0, expected_low=0, expected_high=0, at_risk=0, at_risk_high=0),
    ],
    ids=["a hotel", "a strange name", "no price", "nothing on the books"],
)
def test_a_hotel_of_any_kind_can_be_drawn_without_a_complaint(table: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(ReportPictures().outlook(TODAY, table, "$")) == (1200, 780)


def test_each_hotel_adds_its_two_panels_and_its_figures_change_the_picture() -> None:
    pictures, one = ReportPictures(), nights("A")
    both = pictures.outlook(TODAY, pd.concat([one, nights("B")]), "€")
    assert size(both) == (1200, 1330)
    assert both == pictures.outlook(TODAY, pd.concat([one, nights("B")]), "€")
    assert both != pictures.outlook(TODAY, pd.concat([one, nights("B", at_risk=500.0)]), "€")
    assert both != pictures.outlook(TODAY, pd.concat([one, nights("B", expected=11.0)]), "€")
