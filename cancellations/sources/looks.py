"""A column as it looks: its texts, its numbers, and the form of its dates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from cancellations.sources import vocabulary
from cancellations.sources.evaluation import MONTHS, Evaluation, bare

# Spellings of one column that are tried on each form of a date, and the share of them that must be one.
TRIED = 2_000
MOSTLY = 0.8
# With so many prices, and nights that differ so much (in logarithms), the power of `growth` errs by some 0.1.
TELLING_PRICES = 50
LEAST_SPREAD = 0.2
# The public table's prices of a night grow by 0.03 and 0.14, those of its stays by 1 more.
GROWS = 0.6
STAYS_ALIKE = 0.3


@dataclass(frozen=True)
class Days:
    """A column read as dates by one form; `sides` counts values that only it, and only its rival, fits."""

    form: str | None
    days: pd.Series
    share: float
    rival: str | None = None
    sides: tuple[int, int] = (0, 0)


def growth(prices: pd.Series, nights: pd.Series) -> float | None:
    """The power of the nights by which prices grow: about 1 for those of stays, 0 for those of a night.

    None when there are too few prices, or nights are too much alike.
    """
    told = (prices > 0) & (nights > 0)
    logarithms = np.log(nights[told]), np.log(prices[told])
    if told.sum() < TELLING_PRICES or logarithms[0].std() < LEAST_SPREAD:
        return None
    return float(np.polyfit(*logarithms, 1)[0])


class Seen:
    """A column of the sample: its texts, numbers and days."""

    def __init__(self, name: str, values: pd.Series, evaluation: Evaluation) -> None:
        self.name = name
        self.plain = vocabulary.plain(name)
        self._values, self._evaluation = values, evaluation
        self.texts = evaluation.texts(values)[0]
        self.told = self.texts.dropna()
        self.spellings = pd.Series(self.told.unique(), dtype="str")

    @property
    def is_empty(self) -> bool:
        return self.told.empty

    @property
    def missing(self) -> float:
        return 1 - len(self.told) / max(len(self.texts), 1)

    @cached_property
    def is_unique(self) -> bool:
        return len(self.told) == len(self.texts) == len(self.spellings)

    @cached_property
    def numbers(self) -> pd.Series:
        """Of what is told, all that are numbers."""
        return self._evaluation.numbers(self.told).dropna()

    @property
    def is_number(self) -> bool:
        return not self.is_empty and len(self.numbers) >= 0.9 * len(self.told)

    @property
    def currencies(self) -> list[str]:
        """Signs and codes of currencies that stand beside its numbers."""
        around = self.spellings.str.replace(r"[-+0-9.,'’_\s]", "", regex=True)
        return sorted(set(around[self.spellings.map(bare) != self.spellings]) - {""})

    def is_whole(self, low: float, high: float) -> bool:
        if not self.is_number:
            return False
        fits = (self.numbers == np.floor(self.numbers)) & self.numbers.between(low, high)
        return bool(fits.mean() >= 0.9)

    @property
    def is_month(self) -> bool:
        names = {name for month in MONTHS for name in (month, month[:3])} | {"sept"}
        return self.is_whole(1, 12) or bool(self.spellings.str.casefold().isin(names).mean() >= MOSTLY)

    @cached_property
    def days(self) -> Days | None:
        """The column as dates, by the form that fits the most of its values."""
        if self.is_empty:
            return None
        if pd.api.types.is_datetime64_any_dtype(self._values.dtype):
            return Days(None, self._evaluation.days(self._values, self._values, None), 1.0)
        texts = self.spellings.iloc[:: -(-len(self.spellings) // TRIED)]
        found = {form: self._evaluation.days(texts, texts, form) for form in _forms(texts)}
        told = {form: self._plausible(days, len(texts)) for form, days in found.items()}
        told = {form: fits for form, fits in told.items() if fits.mean() >= MOSTLY}
        if not told:
            return None
        form = max(told, key=lambda f: told[f].sum())
        # 24/05/01 fits as the 24th, too: of years, not of days, a table has few.
        for year_first in (f for f in told if f is not None and f.startswith("%y")):
            if told[year_first].sum() >= told[form].sum() and 2 * _span(found[year_first]) < _span(found[form]):
                form = year_first
        rival = next((f for f in told if f is not None and f == swapped(form)), None)
        sides = (0, 0)
        other = self._plausible(found[swapped(form)], len(texts)) if swapped(form) in found else None
        if other is not None:
            sides = int((told[form] & ~other).sum()), int((other & ~told[form]).sum())
        share = float(told[form].mean())
        return Days(form, self.read(form), share, rival if sides[0] == sides[1] else None, sides)

    @staticmethod
    def _plausible(days: pd.Series, rows: int) -> pd.Series:
        assert len(days) == rows
        return days.between(pd.Timestamp(1990, 1, 1), pd.Timestamp(2100, 1, 1))

    def read(self, form: str | None) -> pd.Series:
        return self._evaluation.days(self._values, self.texts, form)

    def is_category(self, at_most: int) -> bool:
        return 1 < len(self.spellings) <= max(at_most, 0)


def swapped(form: str | None) -> str | None:
    """The same form with day and month the other way round; None where that is no form of a date."""
    if form is None or not re.match(r"%[dm][./-]%[dm]", form):
        return None
    return form.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")


def _span(days: pd.Series) -> float:
    """From the first to the last, in days."""
    return float((days.max() - days.min()) / pd.Timedelta(days=1))


_CLOCK = re.compile(r"([T ]| at |, )([0-9]{1,2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]+)?)( ?[AaPp][Mm])?$")


def _forms(texts: pd.Series) -> Iterator[str | None]:
    """Forms of dates that are worth a try, by the looks of the first values; None is YYYY-MM-DD."""
    yield None
    looks = [text for text in texts.head(20) if re.search("[0-9]", text) and len(text) <= 40]
    if not looks:
        return
    clocks = [match for match in map(_CLOCK.search, looks) if match]
    clock = ""
    if len(clocks) > len(looks) // 2:
        parted, _, seconds, fraction, half = clocks[0].groups()
        hours = "%I" if half else "%H"
        clock = f"{parted}{hours}:%M" + (":%S" if seconds else "") + (".%f" if fraction else "")
        clock += "" if not half else " %p" if half.startswith(" ") else "%p"
    first = _CLOCK.sub("", looks[0])
    if re.fullmatch(r"[0-9]{8}", first):
        yield f"%Y%m%d{clock}"
    for sign in "./-":
        if re.fullmatch(rf"[0-9]{{1,2}}\{sign}[0-9]{{1,2}}\{sign}[0-9]{{2,4}}", first):
            for year in ("%Y", "%y"):
                yield f"%d{sign}%m{sign}{year}{clock}"
                if sign != ".":
                    yield f"%m{sign}%d{sign}{year}{clock}"
        if re.fullmatch(rf"[0-9]{{2}}\{sign}[0-9]{{1,2}}\{sign}[0-9]{{1,2}}", first):
            yield f"%y{sign}%m{sign}%d{clock}"
        if re.fullmatch(rf"[0-9]{{4}}\{sign}[0-9]{{1,2}}\{sign}[0-9]{{1,2}}", first):
            yield f"%Y{sign}%m{sign}%d{clock}"
    if re.search("[A-Za-z]{3}", first):
        for month in ("%b", "%B"):
            for form in (f"%d {month} %Y", f"%d-{month}-%Y", f"%d-{month}-%y", f"{month} %d, %Y", f"{month} %d %Y"):
                yield form + clock
                yield f"%a {form}{clock}"
                yield f"%a, {form}{clock}"
