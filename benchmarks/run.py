"""All benchmarks that need minutes, one after the other: `make bench`. Each writes JSON and a table under out/.

`triplets.py` (hours) and `open_set.py` (needs a file of codes) are run by hand.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    status = 0
    for name in ("speed", "gallery", "detector"):
        print(f"== {name}", flush=True)
        status |= subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
