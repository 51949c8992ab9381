"""How long by-products are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetentionPolicy:
    """Days that things are kept; None: for ever.

    `score_days`: scores by versions that serve no more, counted from the booking's maturity date. `report_days`: pages
    of windows in MLflow, from the window's end, and folders of morning outlooks. `mail_days`: mails that have left.
    """

    score_days: int | None = None
    report_days: int | None = None
    mail_days: int | None = None
