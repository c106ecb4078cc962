"""The stand-in engine behind HTTP instead of in worker processes: same functions, same identity, same answers.

Start: ``PYTHONPATH=engines python3 engines/examples/http_engine.py --port 8090``, and set ``engine.kind = "http"`` and
``engine.http.url = "http://127.0.0.1:8090/"``. A token comes from the environment variable ENGINE_TOKEN, so that it is
not in the list of processes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import standin_engine
import standin_hysteresis
from orchestrator_engine.http import serve_http


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description="The stand-in engine behind HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one and says which")
    options = parser.parse_args()
    serve_http(
        options.host,
        options.port,
        name="standin-engine",
        version="1.0",
        run=standin_engine.run,
        run_with_hysteresis=standin_engine.run_with_hysteresis,
        sources=[Path(standin_engine.__file__), Path(standin_hysteresis.__file__)],
        token=os.environ.get("ENGINE_TOKEN"),
    )


if __name__ == "__main__":
    main()
