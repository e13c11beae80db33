"""How fast is a gallery? `python benchmarks/gallery.py [--templates 100000] [--out out/gallery]`

Fills a gallery with random unit codes (four templates per person; speed does not depend on what the codes are), and
measures opening, reading, identifying, enrolling one person, and forgetting. Beside it: the same question answered by
NumPy alone, which is the least that an exact search can cost. Writes gallery.json and prints a table. `identify` is the
search with one code; `speed.py identify` measures the whole way from a photograph to the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from targets import Target, add_strict, report, said, status

from likeness.recognition.gallery import Gallery
from likeness.recognition.stores.base import Row
from likeness.recognition.stores.mirror import Mirror
from likeness.recognition.stores.sqlite import SqliteStore

PRINT = "benchmark"
TARGETS = (Target("identify p50", 20, "ms"),)  # of at most 100,000 templates of 128 numbers, on two idle cores


def unit(count: int, length: int, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).standard_normal((count, length), dtype=np.float32)
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def timed(call, repeats: int = 1, clock=time.perf_counter) -> list[float]:
    """Milliseconds of each call; with `time.process_time`, of work on all cores (on a busy machine)."""
    found = []
    for _ in range(repeats):
        started = clock()
        call()
        found.append(1000 * (clock() - started))
    return found


def run(templates: int, length: int, repeats: int, folder: Path) -> dict[str, float]:
    codes, probes = unit(templates, length), unit(repeats, length, 1)
    path = folder / "people.db"
    with Gallery(path) as gallery:
        rows = [Row(f"person {i // 4}", code, PRINT, {"size": 112.0}, f"{i}.jpg") for i, code in enumerate(codes)]
        filled = timed(lambda: gallery._store.add(rows))[0]
    result = {"fill": filled}

    store, mirror = SqliteStore(path), Mirror()
    result["first read"] = timed(lambda: mirror.catch_up(store))[0]

    turn = iter(range(10**9))

    def identify() -> None:
        mirror.catch_up(store)
        mirror.search(probes[next(turn) % len(probes)], 5)

    timed(identify, 5)
    figures = timed(identify, repeats)
    result["identify p50"], result["identify p95"] = np.percentile(figures, [50, 95])
    result["identify p50, work"] = float(np.median(timed(identify, repeats, time.process_time)))
    turn = iter(range(10**9))
    plain = timed(lambda: np.argmax(codes @ probes[next(turn) % len(probes)]), repeats)
    result["numpy argmax p50"] = float(np.median(plain))

    number = iter(range(10**9))

    def enroll() -> None:
        i = next(number)
        store.add([Row(f"new {i}", probes[i % len(probes)], PRINT)])

    result["enroll one p50"] = float(np.median(timed(enroll, 20)))
    result["identify after a write p50"] = float(np.median([(enroll(), timed(identify)[0])[1] for _ in range(20)]))
    result["forget one"] = timed(lambda: store.forget("person 7"))[0]
    result["megabytes"] = store.bytes() / 1e6
    store.close()
    return {name: round(float(value), 3) for name, value in result.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--templates", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out/gallery"))
    add_strict(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(options.templates, options.length, options.repeats, Path(folder))
    targets = TARGETS if options.templates <= 100_000 and options.length <= 128 else ()
    described = {
        "templates": options.templates,
        "length": options.length,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "milliseconds": figures,
        "targets": report(targets, figures),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gallery.json").write_text(json.dumps(described, indent=1) + "\n")
    print(f"{options.templates:,} templates x {options.length}, {described['cores']} cores")
    for name, value in figures.items():
        unit = "MB" if name == "megabytes" else "ms"
        beside = said([target for target in targets if target.figure == name], figures)
        print(f"{name:28}{value:12,.2f} {unit}  {beside if beside != '–' else ''}".rstrip())
    return status(all(target.met(figures) for target in targets), strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
