"""What `likeness stylize --estimate` says against what runs take.

    python benchmarks/estimate.py [--runs N...] [--data FOLDER] [--out FILE] [--strict]

Ten sizes, and four other ways (from coarse to fine, a narrow picture, two masked styles, VGG-19 after its warm-up; its
weights: FOLDER/weights), each run in a process of its own, by the library, from pictures on disk to the written
picture: its highest resident size and its seconds, beside those told before by another process. Aim: memory within
20 %, time within 25 %. 25 steps at one scale: L-BFGS's pairs fill up over ten, and a run as people make it has a
hundred and more, beside which reading and writing say little.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from targets import Target, add_strict, data_folder, status
from targets import said as said_of

TARGETS = [Target("memory", 0.20), Target("time", 0.25)]  # of the worst run

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
    {"size": 512, "scales": None},
    {"size": 2048, "content": "narrow", "memory_limit": 550_000_000},
    {"size": 384, "style": ["style", "content"], "masks": [["left"], ["left", "left"]]},
    {"size": 384, "encoder": "vgg19_normalised_relu4_1.npz", "warm_up": True},
]
CHILD = """
import json, sys, time
from likeness.style import machine, pictures
verb, options = sys.argv[1], {"steps": 25, "scales": 1, "tolerance": 0, **json.loads(sys.argv[2])}
files = [options.pop("content"), options.pop("style")]
began = time.monotonic()
if verb == "estimate":
    print(json.dumps(pictures.estimate_stylize(*files, **options).to_dict()))
else:
    pictures.stylize(*files, **options).save(sys.argv[3])
    print(json.dumps({"peak_memory_bytes": machine.peak_memory(), "seconds": time.monotonic() - began}))
"""


def child(folder: Path, verb: str, options: dict) -> dict:
    words = [sys.executable, "-c", CHILD, verb, json.dumps(options), str(folder / "out.png")]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def named(run: dict, pictures: Path, weights: Path) -> dict:
    """The arguments of `stylize`: files for the names of a run."""

    def file(name: str) -> str:
        return str(pictures / f"{name}.png")

    found = {
        **run,
        "content": file(run.get("content", "content")),
        "style": [file(n) for n in run.get("style", ["style"])],
    }
    found["masks"] = [[file(name) for name in pair] for pair in run.get("masks", [])]
    return found | ({"encoder": str(weights / run["encoder"])} if "encoder" in run else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=range(1, len(RUNS) + 1), metavar="N", help="only these")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    add_strict(parser)
    options = parser.parse_args()

    rows = []
    print(f"{'run':60} {'memory said':>12} {'taken':>8} {'':>7} {'time said':>10} {'taken':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, file in enumerate(("content.png", "style.png")):
            noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((2048, 1536)).save(folder / file)
        Image.open(folder / "content.png").resize((2048, 128)).save(folder / "narrow.png")
        Image.fromarray(np.tile([255] * 32 + [0] * 32, (48, 1)).astype(np.uint8)).save(folder / "left.png")
        for run in (RUNS[number - 1] for number in options.runs):
            given = named(run, folder, options.data / "weights")
            said, taken = child(folder, "estimate", given), child(folder, "run", given)
            memory, time = (said[key] / taken[key] - 1 for key in ("peak_memory_bytes", "seconds"))
            rows.append({"run": run, "said": said, "taken": taken, "memory": memory, "time": time})
            figures = (
                f"{said['peak_memory_bytes'] / 1e6:9.0f} MB {taken['peak_memory_bytes'] / 1e6:5.0f} MB {memory:+7.1%}"
            )
            print(f"{run!s:60} {figures} {said['seconds']:8.1f} s {taken['seconds']:6.1f} s {time:+7.1%}", flush=True)
    worst = {name: max(abs(row[name]) for row in rows) for name in ("memory", "time")}
    print(said_of(TARGETS, worst))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    return status(all(target.met(worst) for target in TARGETS), strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
