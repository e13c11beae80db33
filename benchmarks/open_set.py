"""Does a calibration keep its promise? `python benchmarks/open_set.py [CODES.npz] [--people 1000] [--splits 3]`

CODES.npz: what `likeness encode DIR -o CODES.npz` writes for a folder of subjects (`codes`, `files`; the folder of a
file is its subject), or `codes` and `subjects`; without it, simulated people. The people are split: on some the
calibration is fitted, on all others the errors are counted, once per pair for FMR, and in random galleries of strangers
for FPIR. Prints measured / asked for the calibration and for the law of independent comparisons 1 - (1 - F)^N.
At most 1 is promised, on the mean of the splits (`met` or `NOT met`); far below is waste.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from targets import Target, add_strict, said, status

from likeness.recognition.calibration import fit, merge_twins


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        codes = arrays["codes"]
        if "subjects" in arrays:
            return codes, arrays["subjects"]
        return codes, np.array([Path(file).parent.name for file in arrays["files"]])


def simulated(people: int, length: int = 48, groups: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Two photographs of each of many people; people of one group resemble each other a little."""
    rng = np.random.default_rng(1)
    group = rng.standard_normal((groups, length))[rng.integers(groups, size=people)]
    codes = np.repeat(0.4 * group + rng.standard_normal((people, length)), 2, axis=0)
    codes += 0.5 * rng.standard_normal(codes.shape)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return codes.astype(np.float32), np.repeat(np.arange(people), 2)


def measured_fmr(codes: np.ndarray, subjects: np.ndarray, thresholds: list[float]) -> np.ndarray:
    hits, pairs = np.zeros(len(thresholds)), 0
    for start in range(0, len(codes), 1024):
        strangers = subjects[start : start + 1024, None] != subjects
        near = np.sort((2 - 2 * (codes[start : start + 1024] @ codes.T))[strangers])
        hits += np.searchsorted(near, thresholds, "right")
        pairs += len(near)
    return hits / pairs


def nearest_strangers(
    codes: np.ndarray, subjects: np.ndarray, size: int, probes: int, galleries: int, rng: np.random.Generator
) -> np.ndarray:
    """The smallest distance of each probe to a gallery of `size` templates of others, over several random galleries."""
    found = []
    for _ in range(galleries):
        order = rng.permutation(len(codes))
        gallery, searched = order[:size], order[size : size + probes]
        distances = 2 - 2 * (codes[searched] @ codes[gallery].T)
        distances[subjects[searched, None] == subjects[gallery]] = np.inf
        found.append(distances.min(axis=1))
    return np.concatenate(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("codes", type=Path, nargs="?")
    parser.add_argument("--people", type=int, default=1000, help="how many to calibrate on")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--merge", type=float, default=0.0, help="subjects nearer than this count as one person")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 4000])
    parser.add_argument("--out", type=Path, default=Path("out/open_set.json"))
    add_strict(parser)
    options = parser.parse_args()
    codes, subjects = load(options.codes) if options.codes else simulated(options.people + 5000)
    if options.merge:
        subjects = merge_twins(codes, subjects, within=options.merge)
    rng = np.random.default_rng(0)
    ratios: dict[str, list[float]] = {}
    for _ in range(options.splits):
        people = rng.permutation(np.unique(subjects))
        fitted = np.isin(subjects, people[: options.people])
        calibration = fit(codes[fitted], subjects[fitted], "benchmark")
        others, whose = codes[~fitted], subjects[~fitted]
        fmrs = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
        counted = measured_fmr(others, whose, [calibration.threshold(asked) for asked in fmrs])
        for asked, found in zip(fmrs, counted, strict=True):
            ratios.setdefault(f"FMR {asked:g}", []).append(found / asked)
        for size in options.sizes:
            nearest = nearest_strangers(others, whose, size, 2000, 8, rng)
            for asked in (0.1, 0.01, 0.003):
                name = f"FPIR {asked:g} at N = {size}"
                ratios.setdefault(name, []).append(
                    float(np.mean(nearest <= calibration.threshold_open_set(asked, size))) / asked
                )
                independent = calibration.threshold(-math.expm1(math.log1p(-asked) / size))
                ratios.setdefault(name + ", independent", []).append(float(np.mean(nearest <= independent)) / asked)
    print(f"measured / asked; calibrated on {options.people} people, {options.splits} splits of {len(codes)} codes")
    kept = True
    for name, values in ratios.items():
        promise = () if name.endswith("independent") else (Target("mean", 1),)
        mean = {"mean": float(np.mean(values))}
        kept &= all(target.met(mean) for target in promise)
        print(f"{name:36}" + "".join(f"{value:8.2f}" for value in values) + f"  {said(promise, mean)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(ratios, indent=1) + "\n")
    return status(kept, strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
