"""The MLflow registry; the only file that imports mlflow.

Our ledger decides which version is champion; MLflow holds the versions, each with what it was made
of, and shows them. Versions are looked up by the tag `request_id`, so a request has one at most.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import cache, cached_property, lru_cache
from importlib.metadata import distributions
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# A server that restarts is waited for some ten seconds; MLflow's own patience is four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
warnings.filterwarnings("ignore", message=".*noload.*")
warnings.filterwarnings("ignore", category=DeprecationWarning, module="mlflow")

import pandas as pd
from sqlalchemy.exc import SQLAlchemyError

from cancellations import __version__
from cancellations.domain.card import model_card
from cancellations.domain.features import FeatureSet
from cancellations.domain.labels import Labels
from cancellations.errors import BadInput, ServiceDown
from cancellations.ports import Candidate, Classifier, Contestant, Environment, VersionRecord

# MLflow costs a second to import: whoever is only handed a registry, and asks nothing of it, need not wait.
if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.data.pandas_dataset import PandasDataset
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

# Travels with versions that need it; to import it here would be to import scikit-learn.
ESTIMATORS = Path(__file__).with_name("estimators.py")

# Pinned with the model: what its pipeline needs to be loaded and to answer.
REQUIREMENTS = ("scikit-learn", "skops", "pandas", "numpy", "scipy")

# A version's description in MLflow; PostgreSQL refuses a longer one, SQLite takes any.
LONGEST_DESCRIPTION = 5_000
_MORE = "\n\nThe rest of this card is in `model_card.md` of the version's run.\n"

# Loads take turns: a model's arrays are read by way of `ast`, which before Python 3.11.8 fails now and
# then when two threads use it at once (github.com/python/cpython/issues/106905).
_turn = threading.Lock()


def signature(features: FeatureSet) -> ModelSignature:
    """Inputs by hand: an inferred signature depends on which values the sample happens to miss."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    numbers = [ColSpec("double", name, required=False) for name in features.numeric]
    categories = [ColSpec("string", name, required=False) for name in features.categorical]
    return ModelSignature(inputs=Schema([*numbers, *categories]), outputs=Schema([ColSpec("double")]))


def digest(frame: pd.DataFrame) -> str:
    """32 hex digits that change with any value of any row, whatever the rows' order.

    MLflow's own digest looks at the head of a frame only.
    """
    hashes = pd.util.hash_pandas_object(frame, index=False).sort_values().to_numpy()
    names = ",".join(frame.columns).encode()
    return hashlib.sha256(names + hashes.tobytes()).hexdigest()[:32]


@cache
def environment() -> str:
    """The packages of this process, one `name==version` a line, as pip reads it. Looked up once: it takes a while."""
    found = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
    return "\n".join(f"{name}=={number}" for name, number in sorted(found.items())) + "\n"


def _packages(environment: str) -> dict[str, str]:
    """Lines as `environment` writes them, by name."""
    lines = (line.partition("==") for line in environment.splitlines() if "==" in line)
    return {name: number for name, _, number in lines}


def code_version() -> str:
    """The package's version with a digest of its source, which changes with any line of it."""
    package = ESTIMATORS.parent
    source = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{source.hexdigest()[:12]}"


def shortened(card: str) -> str:
    """A card as a version's description: whole, or as many of its sections as fit, and where the rest is."""
    if len(card) <= LONGEST_DESCRIPTION:
        return card
    head = card[: LONGEST_DESCRIPTION - len(_MORE)]
    return head[: max(head.rfind("\n## "), 0) or len(head)].rstrip() + _MORE


def _run_name(candidate: Candidate) -> str:
    """What is said of the run; a recalibration's request says it already."""
    recalibrates = "recalibrates" in candidate.tags
    return candidate.request_id if recalibrates else f"retrain {candidate.request_id}"


def _shown(training: pd.DataFrame, data_digest: str) -> PandasDataset:
    """Training data as MLflow shows them. Types are read off the columns; MLflow would look at each value."""
    from mlflow.data import pandas_dataset
    from mlflow.types import ColSpec, Schema

    class Training(pandas_dataset.PandasDataset):
        @cached_property
        def schema(self) -> Schema:
            return Schema([ColSpec(_kind(dtype), str(name), required=False) for name, dtype in self.df.dtypes.items()])

    told = pandas_dataset.from_pandas(training.iloc[:0], digest=data_digest)
    return Training(training, told.source, targets="label", name="bookings", digest=data_digest)


def _kind(dtype: Any) -> str:
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "datetime"
    return "double" if pd.api.types.is_numeric_dtype(dtype) else "string"


def import_client() -> None:
    """For whoever would rather wait for MLflow's import now than at a registry's first question."""
    import mlflow.artifacts
    import mlflow.sklearn  # noqa: F401 (for what its import costs, nothing else)


class MlflowRegistry:
    """`ports.Registry` on an MLflow tracking store: a server's address, or a database directly.

    `restore` wraps a loaded pipeline; `trusted` are the types that an artifact may hold beyond
    those that skops trusts; `artifact_root` is where a local store keeps files (a server decides
    itself); `ui` the address people open; `login` user and password of a server that wants them.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        name: str,
        artifact_root: str | None,
        ui: str,
        restore: Callable[[Any], Classifier],
        trusted: Sequence[str],
        login: tuple[str, str] | None = None,
    ) -> None:
        if login is not None:
            # The only way by which MLflow's client takes them; as little of one store as the address below.
            os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = login
        self._name = name
        self._artifact_root = artifact_root
        self._ui = ui.rstrip("/")
        self._restore = restore
        self._trusted = list(trusted)
        self._uri = tracking_uri
        self._place = re.sub("//[^/@]*@", "//", tracking_uri)  # without a password, for messages
        for noisy in ("mlflow", "alembic", "mlflow.store.db.utils"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self._load_cached = lru_cache(maxsize=4)(self._load)

    @property
    def _mlflow(self) -> Any:
        """MLflow itself, pointed at this store: it knows one at a time, whoever set it last."""
        import mlflow

        mlflow.set_tracking_uri(self._uri)
        return mlflow

    @cached_property
    def _client(self) -> MlflowClient:
        """Made at its first use: on a database that opens it, which may fail."""
        client: MlflowClient = self._mlflow.MlflowClient(self._uri)
        return client

    @contextmanager
    def _reach(self, doing: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise BadInput(f"MLflow at {self._place} has no such thing, {doing}: {error.message}") from error
            raise ServiceDown(f"MLflow at {self._place} failed, {doing}: {error.message}") from error
        except OSError as error:
            raise ServiceDown(f"MLflow at {self._place} cannot be reached, {doing}: {error}") from error
        except SQLAlchemyError as error:  # while it opens a database MLflow lets these through
            said = str(error).splitlines()[0]
            raise ServiceDown(f"MLflow's database {self._place} cannot be used, {doing}: {said}") from error

    def prepare(self) -> None:
        """Creates the store's tables, the experiment and the registered model where they lack.

        Once, before anything runs in parallel: the first touch of a store migrates it.
        """
        with self._reach("preparing the registry"):
            self._experiment()
            if not self._client.search_registered_models(f"name = '{self._name}'"):
                self._client.create_registered_model(
                    self._name, description="Probability that a reservation is cancelled or ends as a no-show."
                )

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(self._name)
        if known is not None:
            return str(known.experiment_id)
        location = None
        if self._artifact_root is not None:
            location = Path(self._artifact_root).absolute().as_uri()
        return str(self._client.create_experiment(self._name, artifact_location=location))

    def _of_request(self, request_id: str) -> ModelVersion | None:
        found = self._client.search_model_versions(f"name = '{self._name}' and tags.request_id = '{request_id}'")
        return min(found, key=lambda v: int(v.version)) if found else None

    def register(self, candidate: Candidate) -> VersionRecord:
        with self._reach(f"registering the version of request {candidate.request_id}"):
            known = self._of_request(candidate.request_id)
            return self._record(known if known is not None else self._only(self._register(candidate)))

    def _only(self, made: ModelVersion) -> ModelVersion:
        """The request's version: the one just made, or an earlier one that somebody else has made meanwhile.

        MLflow lets two versions have the same tag. Whoever stood still for longer than its lease, between looking
        and registering, takes back what it has made too much.
        """
        first = self._of_request(made.tags["request_id"])
        if first is None or first.version == made.version:
            return made
        self._client.delete_model_version(self._name, made.version)
        return first

    def _register(self, candidate: Candidate) -> ModelVersion:
        import skops.io

        # Set by `mlflow run`: a run of that project, maybe in another store. A version gets a run of its own.
        os.environ.pop("MLFLOW_RUN_ID", None)
        data_digest = digest(candidate.training)
        tags = {
            "request_id": candidate.request_id,
            "as_of": candidate.as_of.isoformat(),
            "data_digest": data_digest,
            "recipe": candidate.recipe,
            "labels": str(candidate.parameters.get("labels", Labels.MATURED.value)),
            **{k: v for k, v in candidate.tags.items() if v},
        }
        with (
            tempfile.TemporaryDirectory() as folder,
            self._mlflow.start_run(experiment_id=self._experiment(), run_name=_run_name(candidate), tags=tags) as run,
        ):
            self._mlflow.log_params({**candidate.parameters, "code_version": code_version()})
            self._mlflow.log_metrics(dict(candidate.metrics))
            self._log_contest(candidate.contest)
            training = Path(folder) / "training.parquet"
            candidate.training.to_parquet(training, index=False)
            self._mlflow.log_artifact(str(training), "data")
            self._mlflow.log_input(_shown(candidate.training, data_digest), context="training")
            self._mlflow.log_text("\n".join(candidate.reasons), "gate.txt")
            self._mlflow.log_text(environment(), "environment.txt")
            if candidate.backtest is not None:
                judged = Path(folder) / "backtest.skops"
                skops.io.dump(candidate.backtest.pipeline, judged)
                self._mlflow.log_artifact(str(judged), "backtest")
            card = self._card(candidate, data_digest)
            if card is not None:
                self._mlflow.log_text(card, "model_card.md")
            for name, picture in candidate.pictures.items():
                drawn = Path(folder) / name
                drawn.write_bytes(picture)
                self._mlflow.log_artifact(str(drawn), "pictures")
            info = self._mlflow.sklearn.log_model(
                candidate.model.pipeline,
                name="model",
                signature=signature(candidate.model.features),
                pip_requirements=[f"{package}=={installed(package)}" for package in REQUIREMENTS],
                pyfunc_predict_fn="predict_proba",
                serialization_format="skops",
                skops_trusted_types=self._trusted,
                code_paths=self._code(candidate, Path(folder)),
                extra_files=self._extra_files(candidate, Path(folder)),
            )
            return self._client.create_model_version(
                self._name,
                source=info.model_uri,
                run_id=run.info.run_id,
                model_id=info.model_id,
                tags=tags,
                description=shortened(card or self._describe(candidate)),
            )

    def _log_contest(self, contest: Sequence[Contestant]) -> None:
        """Recipes side by side under the run that tried them, in MLflow's own way: nested runs."""
        for one in contest:
            tags = {"recipe": one.recipe}
            with self._mlflow.start_run(experiment_id=self._experiment(), run_name=one.recipe, nested=True, tags=tags):
                self._mlflow.log_params(dict(one.parameters))
                self._mlflow.log_metrics(dict(one.metrics))

    def log_refusal(self, request_id: str, reasons: Sequence[str], contest: Sequence[Contestant]) -> None:
        os.environ.pop("MLFLOW_RUN_ID", None)
        tags = {"request_id": request_id, "outcome": "refused"}
        with (
            self._reach(f"keeping the backtest of request {request_id}"),
            self._mlflow.start_run(experiment_id=self._experiment(), run_name=f"refused {request_id}", tags=tags),
        ):
            self._log_contest(contest)
            self._mlflow.log_text("\n".join(reasons), "gate.txt")

    @staticmethod
    def _code(candidate: Candidate, folder: Path) -> list[str] | None:
        """Our classifiers' source, for whoever loads the model without this package; None where it has none."""
        last = candidate.model.pipeline.steps[-1][1]
        if not type(last).__module__.startswith("cancellations."):
            return None
        package = folder / "cancellations"
        package.mkdir()
        (package / "__init__.py").write_text("")
        shutil.copy(ESTIMATORS, package)
        return [str(package)]

    @staticmethod
    def _extra_files(candidate: Candidate, folder: Path) -> list[str]:
        reference = folder / "reference.parquet"
        candidate.reference.to_parquet(reference, index=False)
        importance = folder / "importance.json"
        importance.write_text(json.dumps(dict(candidate.importance), indent=1))
        return [str(reference), str(importance)]

    def _card(self, candidate: Candidate, data_digest: str) -> str | None:
        if candidate.card is None:
            return None
        pinned = {package: installed(package) for package in REQUIREMENTS}
        told = replace(
            candidate.card, model=self._name, data_digest=data_digest, code_version=code_version(), packages=pinned
        )
        return model_card(told)

    @staticmethod
    def _describe(candidate: Candidate) -> str:
        why = candidate.tags.get("reason", "")
        lines = [f"Trained as of **{candidate.as_of}** for request `{candidate.request_id}` ({why}).", ""]
        lines += [f"- {reason}" for reason in candidate.reasons]
        return "\n".join(lines)

    def _run_of(self, version: ModelVersion) -> Run:
        if version.run_id is None:
            raise BadInput(f"version {version.version} has no run in MLflow; it was not registered by this project")
        return self._client.get_run(version.run_id)

    def _record(self, version: ModelVersion) -> VersionRecord:
        run = self._run_of(version)
        return VersionRecord(
            version=str(version.version),
            request_id=version.tags["request_id"],
            run_id=run.info.run_id,
            trained_as_of=date.fromisoformat(version.tags["as_of"]),
            data_digest=version.tags["data_digest"],
            metrics=dict(run.data.metrics),
            recipe=version.tags.get("recipe", ""),
            labels=Labels(version.tags.get("labels", Labels.MATURED.value)),
        )

    def _load(self, version: str) -> Classifier:
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        with self._reach(f"loading version {version}"):
            folder = Path(self._mlflow.artifacts.download_artifacts(f"models:/{self._name}/{version}"))
        artifact = folder / "model.skops"
        if not artifact.exists():
            raise BadInput(f"version {version} has no model.skops in {folder}; it was not registered by this project")
        try:
            with _turn:
                return self._restore(skops.io.load(artifact, trusted=self._trusted))
        except UntrustedTypesFoundException as error:
            raise BadInput(f"version {version} is not loaded: {error}") from error
        except Exception as error:
            raise BadInput(f"version {version} cannot be read from {artifact}: {error!r}") from error

    def load(self, version: str, *, fresh: bool = False) -> Classifier:
        """The version's model; versions never change, so the last few are kept."""
        return self._load(version) if fresh else self._load_cached(version)

    def record(self, version: str) -> VersionRecord:
        with self._reach(f"looking up version {version}"):
            found = self._client.get_model_version(self._name, version)
            try:
                return self._record(found)
            except (KeyError, ValueError) as error:
                raise BadInput(
                    f"version {version} does not say what it was trained on ({error}); set its tags in MLflow:"
                    " request_id (any name that no other version has), as_of (YYYY-MM-DD, the last day whose"
                    " outcomes it saw), data_digest"
                ) from error

    def tags(self, version: str) -> dict[str, str]:
        """Tags of a version, which lead back to its request, report and data."""
        with self._reach(f"reading the tags of version {version}"):
            return dict(self._client.get_model_version(self._name, version).tags)

    def _file(self, version: str, name: str) -> Path:
        with self._reach(f"reading {name} of version {version}"):
            return Path(self._mlflow.artifacts.download_artifacts(f"models:/{self._name}/{version}/extra_files/{name}"))

    def reference(self, version: str) -> pd.DataFrame:
        return pd.read_parquet(self._file(version, "reference.parquet"))

    def training(self, version: str) -> pd.DataFrame:
        with self._reach(f"reading the training data of version {version}"):
            run = self._run_of(self._client.get_model_version(self._name, version))
            path = self._mlflow.artifacts.download_artifacts(
                run_id=run.info.run_id, artifact_path="data/training.parquet"
            )
        return pd.read_parquet(path)

    def parameters(self, version: str) -> dict[str, str]:
        with self._reach(f"reading the parameters of version {version}"):
            return dict(self._run_of(self._client.get_model_version(self._name, version)).data.params)

    def environment(self, version: str | None = None) -> Environment:
        if version is None:
            return Environment(code_version(), _packages(environment()))
        with self._reach(f"reading the environment of version {version}"):
            run = self._run_of(self._client.get_model_version(self._name, version))
            text = self._mlflow.artifacts.load_text(f"{run.info.artifact_uri}/environment.txt")
        return Environment(run.data.params.get("code_version", ""), _packages(text))

    def digest(self, training: pd.DataFrame) -> str:
        return digest(training)

    def importance(self, version: str) -> dict[str, float]:
        shares: dict[str, float] = json.loads(self._file(version, "importance.json").read_text())
        return shares

    def aliases(self) -> dict[str, str]:
        with self._reach("reading the aliases"):
            found = self._client.search_registered_models(f"name = '{self._name}'")
            return {alias: str(version) for alias, version in found[0].aliases.items()} if found else {}

    def set_alias(self, alias: str, version: str | None) -> None:
        with self._reach(f"moving the alias {alias!r}"):
            if version is None:
                self._client.delete_registered_model_alias(self._name, alias)
            else:
                self._client.set_registered_model_alias(self._name, alias, version)

    def log_report(self, version: str, report_id: str, files: Sequence[Path]) -> None:
        self._keep(version, f"reports/{report_id}", files)

    def log_comparison(self, version: str, name: str, files: Sequence[Path]) -> None:
        self._keep(version, f"comparisons/{name}", files)

    def _keep(self, version: str, place: str, files: Sequence[Path]) -> None:
        with self._reach(f"keeping {place}"):
            run_id = self._run_of(self._client.get_model_version(self._name, version)).info.run_id
            for file in files:
                self._client.log_artifact(run_id, str(file), place)

    def report_page(self, version: str, report_id: str) -> bytes | None:
        place = f"reports/{report_id}"
        with self._reach(f"reading {place}"), tempfile.TemporaryDirectory() as folder:
            run_id = self._run_of(self._client.get_model_version(self._name, version)).info.run_id
            kept = [file.path for file in self._client.list_artifacts(run_id, place)]
            page = next((path for path in kept if path.endswith("evidently.html")), None)
            if page is None:
                return None
            return Path(self._client.download_artifacts(run_id, page, folder)).read_bytes()

    def drop_report(self, version: str, report_id: str, *, dry_run: bool = False) -> bool:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = f"reports/{report_id}"
        with self._reach(f"taking away {place}"):
            run = self._run_of(self._client.get_model_version(self._name, version)).info
            if not self._client.list_artifacts(run.run_id, place):
                return False
            if not dry_run:
                get_artifact_repository(run.artifact_uri).delete_artifacts(place)
            return True

    def version_address(self, version: str) -> str | None:
        return f"{self._ui}/#/models/{self._name}/versions/{version}" if self._ui else None

    def report_address(self, version: str, report_id: str) -> str | None:
        if not self._ui:
            return None
        with self._reach(f"finding the run of version {version}"):
            run = self._run_of(self._client.get_model_version(self._name, version))
        return f"{self._ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/reports/{report_id}"
