"""How fast is recognising, and how much memory does it take?

    python benchmarks/speed.py [verify] [cold] [enrol] [identify] [--photos FOLDER] [--out out/speed] [--strict]

verify   two 250 x 250 JPEG files to a decision, in a process that has done it before: median, 95th percentile
cold     `likeness verify A B` as a user types it, from nothing: seconds and peak resident memory
enrol    a folder of subjects into a new gallery: photographs per second
identify a photograph to the answer among 100,000 templates: `Gallery.identify` in a process that has done it before,
         and `likeness identify DB PHOTO` from nothing (reads the whole gallery first); `gallery.py` measures the search
         alone

Photographs: FOLDER/NAME/*.jpg or .webp (default: faces/lfw of $LIKENESS_DATA), re-encoded as JPEG files in a temporary
folder. Each part writes OUT/PART.json; all of them print one table, with `met` or `NOT met` beside each target. The
load of the machine is written beside every figure: on a busy machine times say little, the CPU times beside them more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from targets import Target, add_strict, data_folder, report, said, status

from likeness.nets.engine import cpu_quota
from likeness.samples.folders import read_subjects
from likeness.style.machine import peak_memory

SIDE = 250


def jpegs(photos: Path, folder: Path, *, most: int) -> list[Path]:
    """Up to `most` of the photographs, drawn with seed 0, as JPEG files FOLDER/NAME/... of at most 250 x 250."""
    samples = read_subjects(photos)
    random.Random(0).shuffle(samples)
    made = []
    for sample in samples[:most]:
        file = folder / sample.subject / (sample.path.stem + ".jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(sample.path) as image:
            image = image.convert("RGB")
            image.thumbnail((SIDE, SIDE))
            image.save(file, quality=90)
        made.append(file)
    return made


def measure_verify(photos: Path, encoder: str) -> dict[str, Any]:
    """Warm: the median time of `likeness.verify` on pairs of files."""
    import likeness

    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(photos, Path(folder), most=100)
        pairs = list(zip(files[::2], files[1::2], strict=True))
        for a, b in pairs[:5]:
            likeness.verify(a, b, encoder=encoder)
        times, busy = [], time.process_time()
        for a, b in pairs * 4:
            start = time.perf_counter()
            likeness.verify(a, b, encoder=encoder)
            times.append(1000 * (time.perf_counter() - start))
        busy = 1000 * (time.process_time() - busy) / len(times)
    return {
        "runs": len(times),
        "p50_ms": statistics.median(times),
        "p95_ms": statistics.quantiles(times, n=20)[-1],
        "fastest_ms": min(times),
        "cpu_ms": busy,
    }


# Runs a command and says [seconds, status, CPU seconds, peak]. In a small process of its own: Linux lets the peak of a
# process begin with that of the one which started it.
LAUNCH = """
import json, os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet), 0)
seconds = time.perf_counter() - start
print(json.dumps([seconds, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def command_cost(arguments: list[str], *, runs: int) -> dict[str, Any]:
    """Seconds, CPU seconds and peak resident memory of `likeness ARGUMENTS` in a new process."""
    command = [sys.executable, "-m", "likeness", *arguments]
    seconds, busy, megabytes = [], [], []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCH, *command], capture_output=True, text=True, check=True
        )
        took, ended, used, peak = json.loads(done.stdout)
        if ended not in (0, 1):
            sys.exit(f"likeness {arguments[0]} failed: {done.stderr}")
        seconds.append(took)
        busy.append(used)
        megabytes.append(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))
    return {
        "runs": runs,
        "p50_s": statistics.median(seconds),
        "fastest_s": min(seconds),
        "cpu_s": statistics.median(busy),
        "peak_rss_mb": max(megabytes),
    }


def measure_cold(photos: Path, encoder: str, *, runs: int = 10) -> dict[str, Any]:
    """Cold: `likeness verify A B` in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        a, b = jpegs(photos, Path(folder), most=2)
        return command_cost(["verify", str(a), str(b), "--json", "--encoder", encoder], runs=runs)


def measure_identify(photos: Path, encoder: str, *, templates: int = 100_000, runs: int = 5) -> dict[str, Any]:
    """From a photograph to the answer, among `templates` random codes (four of each person), warm and cold."""
    import likeness
    from likeness.recognition.encoder import resolve
    from likeness.recognition.stores.base import Row

    coder = resolve(encoder)
    codes = np.random.default_rng(0).standard_normal((templates, coder.code_length), dtype=np.float32)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(photos, Path(folder) / "photos", most=50)
        path = Path(folder) / "people.db"
        with likeness.Gallery(path, encoder=encoder) as gallery:
            gallery._store.add([Row(f"person {i // 4}", code, coder.fingerprint) for i, code in enumerate(codes)])
            for file in files[:5]:
                gallery.identify(file)
            times, busy = [], time.process_time()
            for file in files * 2:
                start = time.perf_counter()
                gallery.identify(file)
                times.append(1000 * (time.perf_counter() - start))
            busy = 1000 * (time.process_time() - busy) / len(times)
        cold = command_cost(["identify", str(path), str(files[0]), "--json", "--encoder", encoder], runs=runs)
    return {
        "templates": templates,
        "runs": len(times),
        "p50_ms": statistics.median(times),
        "p95_ms": statistics.quantiles(times, n=20)[-1],
        "cpu_ms": busy,
        **{f"cold_{name}": value for name, value in cold.items()},
    }


def measure_enrol(photos: Path, encoder: str, *, most: int = 600) -> dict[str, Any]:
    """Batch: photographs per second from files on the disk to templates in the gallery."""
    import likeness

    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        count = len(jpegs(photos, people, most=most))
        with likeness.Gallery(Path(folder) / "people.db", encoder=encoder) as gallery:
            start, busy = time.perf_counter(), time.process_time()
            gallery.enroll_folder(people)
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
            stats = gallery.stats()
    return {
        "photos": count,
        "seconds": seconds,
        "photos_per_s": count / seconds,
        "cpu_ms_per_photo": 1000 * busy / count,
        "stats": stats if isinstance(stats, dict) else getattr(stats, "to_dict", lambda: str(stats))(),
    }


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "verify": measure_verify,
    "cold": measure_cold,
    "enrol": measure_enrol,
    "identify": measure_identify,
}
COLUMNS = {
    "verify": ("p50_ms", "p95_ms", "fastest_ms", "cpu_ms"),
    "cold": ("p50_s", "fastest_s", "cpu_s", "peak_rss_mb"),
    "enrol": ("photos_per_s", "cpu_ms_per_photo", "photos"),
    "identify": ("p50_ms", "p95_ms", "cpu_ms", "cold_p50_s", "cold_peak_rss_mb"),
}
TARGETS = {
    "verify": (Target("p50_ms", 40),),
    "cold": (Target("p50_s", 1), Target("peak_rss_mb", 180)),
    "enrol": (Target("photos_per_s", 25, least=True),),
    "identify": (),
}


def machine() -> dict[str, Any]:
    return {
        "cpus": cpu_quota(),
        "processor": _processor(),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "peak_rss_mb": peak_memory() / (1 << 20),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> int:
    data = data_folder()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--photos", type=Path, default=data / "faces" / "lfw")
    parser.add_argument("--encoder", default="face")
    parser.add_argument("--out", type=Path, default=Path("out/speed"))
    add_strict(parser)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    rows, all_met = [], True
    for part in options.parts or PARTS:
        before = machine()
        found = {"part": part, **PARTS[part](options.photos, options.encoder), "machine": before}
        found["targets"] = report(TARGETS[part], found)
        all_met &= all(target["met"] for target in found["targets"])
        (options.out / f"{part}.json").write_text(json.dumps(found, indent=2) + "\n")
        figures = ", ".join(f"{name} {found[name]:.4g}" for name in COLUMNS[part])
        rows.append((part, figures, said(TARGETS[part], found), f"{before['load_1min']:.1f}"))
    print("| part | figures | targets | load |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return status(all_met, strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
