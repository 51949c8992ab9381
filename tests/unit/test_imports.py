"""The architecture: arrows between rooms point inward, and each outside package stays in its room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("cancellations", "monitoring", "flows", "deployments")

# A room is a module or a package with all that is in it; a longer name wins over a shorter one.
INNER = {"cancellations.domain", "cancellations.ports", "cancellations.errors"}
ADAPTERS = {
    "cancellations.store",
    "cancellations.registry",
    "cancellations.mail",
    "cancellations.pages",
    "cancellations.model",
    "cancellations.inference",
    "cancellations.trees",
    "cancellations.metrics",
    "cancellations.sources",
    "monitoring",
}
# Room -> rooms of ours that it may import beside itself. `cancellations` is its `__init__`: the version.
ROOMS: Mapping[str, set[str]] = {
    "cancellations": set(),
    "cancellations.errors": set(),
    "cancellations.domain": set(),
    "cancellations.home": {"cancellations.errors"},
    "cancellations.ports": {"cancellations.domain"},
    "cancellations.settings": {"cancellations.domain", "cancellations.errors"},
    "cancellations.usecases": INNER,
    **dict.fromkeys(ADAPTERS, INNER | {"cancellations.settings"}),
    "cancellations.model": INNER | {"cancellations.settings", "cancellations.estimators", "cancellations.trees"},
    "cancellations.inference": INNER | {"cancellations.settings", "cancellations.trees"},
    # It takes the pipelines that `model` makes to pieces.
    "cancellations.trees": INNER | {"cancellations.estimators"},
    # It writes down which code of ours a version was made by.
    "cancellations.registry": INNER | {"cancellations", "cancellations.settings", "cancellations.estimators"},
    # Travels with a version, to where there is nothing else of ours.
    "cancellations.estimators": set(),
    "cancellations.bootstrap": INNER | ADAPTERS | {"cancellations.settings", "cancellations.usecases"},
    "cancellations.replay": INNER
    | {"cancellations.settings", "cancellations.home", "cancellations.usecases", "cancellations.bootstrap"},
    # It stamps deployments with the package's version.
    "flows": INNER | {"cancellations", "cancellations.settings", "cancellations.usecases", "cancellations.bootstrap"},
    "deployments": INNER
    | {"cancellations", "cancellations.settings", "cancellations.usecases", "cancellations.bootstrap"}
    | {"cancellations.home", "cancellations.replay", "flows"},
}
# Rooms that a newcomer reads first: nothing but these from outside the standard library.
PURE = {"cancellations.errors", "cancellations.domain", "cancellations.ports", "cancellations.usecases"}
PURE_MAY = {"numpy", "pandas"}
# Outside package -> the only places that may import it.
ONLY_IN: Mapping[str, set[str]] = {
    "mlflow": {"cancellations.registry"},
    "evidently": {"monitoring"},
    "smtplib": {"cancellations.mail"},
    # The registry catches what MLflow lets through of it; a source may be a query.
    "sqlalchemy": {"cancellations.store", "cancellations.registry", "cancellations.sources.query"},
    "alembic": {"cancellations.store"},
    "prefect": {"flows", "deployments"},
    "prefect_dask": {"flows"},
}
# Costs seconds to import: inside functions only.
LAZY = {"evidently"}


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, at the top of the file or only when a function runs."""

    module: str
    line: int
    target: str
    lazy: bool


def modules(root: Path) -> dict[str, Path]:
    """Dotted names of all our modules."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Iterator[Import]:
    known = modules(root)
    for module, path in known.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        yield from _imports(ast.parse(path.read_text(), str(path)), module, package, known, lazy=False)


def _imports(node: ast.AST, module: str, package: str, known: Mapping[str, Path], *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(module, child.lineno, name.name, lazy)
        elif isinstance(child, ast.ImportFrom):
            origin = child.module or ""
            if child.level:
                above = ".".join(package.split(".")[: len(package.split(".")) - child.level + 1])
                origin = f"{above}.{origin}".rstrip(".")
            for name in child.names:
                # `from cancellations import settings` is an import of the module, not of its package.
                whole = f"{origin}.{name.name}"
                yield Import(module, child.lineno, whole if whole in known else origin, lazy)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, module, package, known, lazy=lazy or inside)


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def room(module: str) -> str | None:
    """The room of a module of ours; None when nobody has said yet where it belongs."""
    if module == "cancellations":
        return module
    return next((r for r in sorted(ROOMS, key=len, reverse=True) if r != "cancellations" and within(module, {r})), None)


def outward(root: Path) -> list[str]:
    """Every import that the rules forbid, a sentence each."""
    found = [f"{m} belongs to no room; give it one in ROOMS" for m in modules(root) if room(m) is None]
    for i in imports(root):
        where, here, top = f"{i.module}:{i.line}", room(i.module), i.target.partition(".")[0]
        if here is None:
            continue
        if top in PACKAGES:
            there = room(i.target)
            if there != here and there not in ROOMS[here]:
                found.append(f"{where} imports {i.target}: {here} must not know {there}")
        elif within(i.module, PURE) and top not in PURE_MAY and top not in sys.stdlib_module_names:
            found.append(f"{where} imports {i.target}: {here} knows the standard library, numpy and pandas only")
        if top in ONLY_IN and not within(i.module, ONLY_IN[top]):
            found.append(f"{where} imports {i.target}: only {', '.join(sorted(ONLY_IN[top]))} may")
        if top in LAZY and not i.lazy:
            found.append(f"{where} imports {i.target} at its top: it costs seconds, import it inside a function")
    return found


def test_no_arrow_points_outward() -> None:
    assert outward(PROJECT) == []


def test_all_packages_are_walked_and_each_outside_package_is_met_where_it_belongs() -> None:
    met = {i.target.partition(".")[0] for i in imports(PROJECT)}
    assert met >= {*ONLY_IN, *PACKAGES}
    assert {room(m) for m in modules(PROJECT)} == set(ROOMS)


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("cancellations/domain/price.py", "import cancellations.ports", "must not know cancellations.ports"),
        ("cancellations/domain/price.py", "from cancellations.errors import BadInput", "must not know"),
        ("cancellations/domain/price.py", "import scipy.stats", "standard library, numpy and pandas only"),
        ("cancellations/ports.py", "from cancellations.usecases import score", "must not know cancellations.usecases"),
        ("cancellations/usecases/score.py", "from ..store import tables", "must not know cancellations.store"),
        ("cancellations/usecases/score.py", "def f():\n    import sklearn", "numpy and pandas only"),
        ("cancellations/usecases/score.py", "from cancellations import settings", "must not know"),
        ("cancellations/model.py", "from cancellations.registry import digest", "must not know cancellations.registry"),
        ("cancellations/mail/letter.py", "from cancellations import store", "must not know cancellations.store"),
        ("monitoring/drift.py", "from cancellations.usecases.monitor import Rhythm", "must not know"),
        ("monitoring/drift.py", "import evidently", "at its top"),
        ("monitoring/drift.py", "if True:\n    from evidently import Report", "at its top"),
        ("monitoring/drift.py", "import prefect", "only deployments, flows may"),
        ("cancellations/bootstrap.py", "def f():\n    from evidently import Report", "only monitoring may"),
        ("cancellations/bootstrap.py", "from flows.score import score", "must not know flows"),
        ("cancellations/bootstrap.py", "import mlflow.sklearn", "only cancellations.registry may"),
        (
            "cancellations/model.py",
            "import sqlalchemy as sa",
            "only cancellations.registry, cancellations.sources.query, cancellations.store",
        ),
        ("cancellations/registry.py", "from alembic import command", "only cancellations.store may"),
        ("flows/score.py", "from monitoring.report import EvidentlyMonitor", "must not know monitoring"),
        ("flows/score.py", "import smtplib", "only cancellations.mail may"),
        ("flows/score.py", "from deployments import cli", "must not know deployments"),
        ("deployments/cli.py", "from cancellations.store import open_store", "must not know cancellations.store"),
        ("cancellations/utils.py", "", "belongs to no room"),
    ],
)
def test_a_planted_arrow_is_found(tmp_path: Path, path: str, code: str, told: str) -> None:
    for place in ("cancellations/store/__init__.py", "cancellations/settings.py", "cancellations/usecases/monitor.py"):
        plant(tmp_path / place)
    plant(tmp_path / path, code)
    found = outward(tmp_path)
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("cancellations/domain/price.py", "from cancellations.domain import labels\nimport math, numpy as np"),
        ("cancellations/usecases/score.py", "from .aliases import ALIASES\nfrom cancellations.errors import Refused"),
        ("cancellations/bootstrap.py", "from cancellations.store import open_store\nfrom monitoring import report"),
        ("monitoring/drift.py", "def f():\n    from evidently import Report"),
        ("flows/score.py", "import prefect\nfrom cancellations.bootstrap import App"),
    ],
)
def test_an_arrow_inward_is_no_finding(tmp_path: Path, path: str, code: str) -> None:
    plant(tmp_path / path, code)
    assert outward(tmp_path) == []


def plant(path: Path, code: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
