"""What `likeness stylize --estimate` says against what runs take: `python benchmarks/estimate.py [--sizes N]`.

Ten sizes and ways, each run in a process of its own (by the library, from pictures on disk to the written picture): its
highest resident size and its seconds, beside those told before by another process. Aim: memory within 20 %, time within
25 %. 25 steps at one scale: L-BFGS's pairs fill up over ten, and a run as people make it has a hundred and more, beside
which reading and writing say little.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

RUNS = [
    {"size": 256},
    {"size": 384, "optimizer": "adam"},
    {"size": 512},
    {"size": 512, "tile": 128},
    {"size": 640, "history": 3, "compact": True},
    {"size": 768},
    {"size": 1024, "tile": 256},
    {"size": 1024},
    {"size": 1536, "tile": 256, "history": 2, "compact": True},
    {"size": 2048, "memory_limit": 1_000_000_000},
]
CHILD = """
import json, sys, time
from likeness.style import machine, pictures
folder, verb, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
files, options = [f"{folder}/content.png", f"{folder}/style.png"], {"steps": 25, "scales": 1, "tolerance": 0, **options}
began = time.monotonic()
if verb == "estimate":
    print(json.dumps(pictures.estimate_stylize(*files, **options).to_dict()))
else:
    pictures.stylize(*files, **options).save(f"{folder}/out.png")
    print(json.dumps({"peak_memory_bytes": machine.peak_memory(), "seconds": time.monotonic() - began}))
"""


def child(folder: Path, verb: str, options: dict) -> dict:
    words = [sys.executable, "-c", CHILD, str(folder), verb, json.dumps(options)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=len(RUNS), help="only the first so many")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--strict", action="store_true", help="exit 1 where an aim is not met")
    options = parser.parse_args()

    rows = []
    print(f"{'run':60} {'memory said':>12} {'taken':>8} {'':>7} {'time said':>10} {'taken':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, file in enumerate(("content.png", "style.png")):
            noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((2048, 1536)).save(folder / file)
        for run in RUNS[: options.sizes]:
            said, taken = child(folder, "estimate", run), child(folder, "run", run)
            memory, time = (said[key] / taken[key] - 1 for key in ("peak_memory_bytes", "seconds"))
            rows.append({"run": run, "said": said, "taken": taken, "memory": memory, "time": time})
            figures = (
                f"{said['peak_memory_bytes'] / 1e6:9.0f} MB {taken['peak_memory_bytes'] / 1e6:5.0f} MB {memory:+7.1%}"
            )
            print(f"{run!s:60} {figures} {said['seconds']:8.1f} s {taken['seconds']:6.1f} s {time:+7.1%}", flush=True)
    met = {name: max(abs(row[name]) for row in rows) <= aim for name, aim in (("memory", 0.20), ("time", 0.25))}
    print(", ".join(f"{name}: {'met' if well else 'NOT met'}" for name, well in met.items()))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    sys.exit(1 if options.strict and not all(met.values()) else 0)


if __name__ == "__main__":
    main()
