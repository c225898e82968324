"""Serve a folder as the model acme/big until interrupted; the first line is the endpoint."""

import argparse
import contextlib
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # run as a folder, not as a package

from hub import Repo, serve  # noqa: E402  after the path


def main() -> None:
    """Read the command line, serve, wait."""
    parser = argparse.ArgumentParser(prog="python tests/hub", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--xet", action="store_true", help="offer large files through Xet too")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    repo = Repo.of("acme/big", args.folder, xet=args.xet)
    with contextlib.suppress(KeyboardInterrupt), serve(repo, port=args.port) as server:
        print(server.endpoint, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
