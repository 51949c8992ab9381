"""`mlflow run` trains by our entry point, with whatever tracking store it keeps its own notes in."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import mlflow
import pytest

from cancellations import settings
from cancellations.bootstrap import App, open_source, prepare

PROJECT = Path(__file__).parents[2]
DAY = date(2016, 2, 1)


@pytest.mark.long
@pytest.mark.parametrize("shared", [True, False], ids=["same store", "a store of its own"])
def test_mlflow_run_registers_a_version_with_a_run_of_its_own(tmp_path: Path, shared: bool) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "deployments.cli", "init", "--home", str(home)]
    subprocess.run(command, check=True, cwd=PROJECT, timeout=120)
    known = settings.load(home=home, database_url="", mlflow_tracking_uri="", mlflow_artifacts="")
    prepare(known)
    app = App(known)
    app.ingest(open_source("simulator", known), until=DAY)

    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MLFLOW_", "CANCELLATIONS_", "PREFECT_"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    options = ["-P", f"as_of={DAY}", "-P", f"home={home}"]
    if shared:
        environment["MLFLOW_TRACKING_URI"] = known.tracking_uri
        options += ["--experiment-name", "cancellations"]
    command = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "-e", "retrain", "--env-manager", "local", *options]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    champion = app.status().champion
    assert champion is not None
    run = mlflow.MlflowClient(known.tracking_uri).get_run(champion.run_id)
    assert run.info.run_name == f"retrain {champion.request_id}"
    assert (Path(known.artifact_root or "") / champion.run_id).is_dir()
    assert not (elsewhere / "mlruns").exists()
