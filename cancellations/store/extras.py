"""Columns that mappings declare: many columns in a frame, one JSON text in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cancellations.domain.reservation import Column

EXTRAS = "extras"


def pack(frame: pd.DataFrame, declared: Sequence[Column]) -> pd.DataFrame:
    """`frame` with the declared columns that it has as one text, names sorted, missing values left out.

    Equal values give equal texts; a row without any has none.
    """
    names = sorted(c.name for c in declared if c.name in frame)
    texts = pd.Series(np.nan, index=frame.index, dtype="str")
    if names:
        filled = frame[names].notna()
        told = [
            json.dumps({n: v for n, v, there in zip(names, values, known, strict=True) if there}, ensure_ascii=False)
            for values, known in zip(
                zip(*(frame[n].tolist() for n in names), strict=True), filled.to_numpy(), strict=True
            )
        ]
        texts = pd.Series(told, index=frame.index, dtype="str").where(filled.any(axis=1))
    return frame.drop(columns=names).assign(**{EXTRAS: texts})


def packed(row: Mapping[str, Any], declared: Sequence[Column]) -> str | None:
    """The same text of one row of plain values, numbers with NaN for missing, texts or None."""
    if not declared:
        return None
    told = {name: row.get(name) for name in sorted(c.name for c in declared)}
    told = {name: value for name, value in told.items() if value is not None and value == value}
    return json.dumps(told, ensure_ascii=False) if told else None


def unpack(frame: pd.DataFrame, declared: Sequence[Column]) -> pd.DataFrame:
    """The reverse of `pack`; every declared column is there, float64 or str."""
    told = frame[EXTRAS]
    out = frame.drop(columns=EXTRAS)
    if not declared:
        return out
    present = told.notna()
    values = pd.DataFrame(json.loads(f"[{','.join(told[present])}]"), index=frame.index[present])
    values = values.reindex(index=frame.index, columns=[c.name for c in declared])
    kinds = {c.name: "str" if c.kind == "category" else "float64" for c in declared}
    return out.assign(**{str(name): column for name, column in values.astype(kinds).items()})
