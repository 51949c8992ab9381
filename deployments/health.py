"""Whether a service answers, for health checks: `python deployments/health.py http://127.0.0.1:8000/health`.

Exit codes: 0 it does, 1 it does not.
"""

from __future__ import annotations

import sys
import urllib.request

SECONDS = 4


def main() -> None:
    # A proxy of the environment's is not for a service of this very container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(sys.argv[1], timeout=SECONDS).close()
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")


if __name__ == "__main__":
    main()
