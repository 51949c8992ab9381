"""Processes that work for this one, and end when it does, however it does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def workers(count: int, prepare: Callable[..., Any] | None = None, *given: Any) -> ProcessPoolExecutor:
    """So many processes, each begun anew; `prepare` is called in each with what is `given`.

    Python's own pool leaves its processes behind where this one is killed: they wait for work that nobody can give
    them, and hold each other's pipe open.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context, _begin, (prepare, given))


def _begin(prepare: Callable[..., Any] | None, given: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_the_parent, name="parent", daemon=True).start()
    if prepare is not None:
        prepare(*given)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
