"""All benchmarks that need minutes, one after the other: `make bench`. Each writes JSON and a table under out/.

With `--strict` the exit code is 1 where one of them does not meet a target.

By hand: `triplets.py`, `vgg19.py`, `peers.py`, `contact_sheet.py`, `downhill.py` (hours), `open_set.py`
(needs a file of codes).
"""

import argparse
import subprocess
import sys
from pathlib import Path

from targets import add_strict

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_strict(parser)
    more = ["--strict"] if parser.parse_args().strict else []
    status = 0
    for name in ("speed", "gallery", "detector", "style", "estimate"):
        print(f"== {name}", flush=True)
        status |= subprocess.run([sys.executable, str(HERE / f"{name}.py"), *more], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
