"""The command begins quietly."""

from __future__ import annotations

import signal
import subprocess
import sys

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
