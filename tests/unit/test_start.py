"""The command begins quietly, and every run without what it may not need."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

FLOWS = sorted(f"flows.{path.stem}" for path in (Path(__file__).resolve().parents[2] / "flows").glob("[a-z]*.py"))
# Each costs a fifth of a second or more to import; who draws, fits, compares or asks the registry waits for it then.
HEAVY = ("alembic", "dask", "evidently", "matplotlib", "mlflow", "scipy", "sklearn", "skops")

# Ctrl-C comes just as the command line's modules begin to load.
IMPATIENT = """
import signal, sys

class Impatient:
    def find_spec(self, name, *_):
        if name == "deployments.cli":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Impatient())
from deployments.start import main
main()
"""


def test_ctrl_c_before_everything_is_loaded_ends_without_a_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPATIENT], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGINT  # which a shell tells as 130
    assert ended.stderr == ""


def test_what_costs_seconds_to_import_is_left_to_those_who_use_it() -> None:
    code = f"import sys, {', '.join(FLOWS)}, deployments.cli; print(*(set({HEAVY}) & set(sys.modules)))"
    begun = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert begun.stdout.split() == []
