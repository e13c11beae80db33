"""How fast does J fall, beside the peers' ways of going down? Each on the same J, the same pictures and one core.

    python benchmarks/peers.py [METHOD ...] [--encoder vgg-slim] [--size 512] [--evaluations 500]
        [--pair CONTENT STYLE] [--data FOLDER] [--out out/peers]

plain       torch's L-BFGS, 100 pairs, on J as it is: what it reaches is the measure of all
johnson     neural-style and its ports: pixels of 0...255 less the mean, L-BFGS as they call it
adam        style-transfer-pytorch: Adam from 128 pixels in steps of the square root of 2, warm starts, moving average
ours        `stylize_sample` with its default settings
ours_long   the same with as many steps as the peers have, as with `--steps`
ours_fp32   as ours, in float32, where the default is bfloat16

Every picture on the way is judged by J in float32 at full size, outside of the time; time is CPU time on one thread.
Pairs are files; the default is three of style/content and style/paintings_pd of FOLDER ($LIKENESS_DATA). OUT gets
PAIR-METHOD.json, which a rerun takes as done, and from all of them peers.md (a table) and peers.svg (the curves).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import peers_methods as methods
from peers_report import LABELS, caption, ratios, table
from targets import data_folder

PAIRS = (
    ("tubingen.jpg", "vangogh_starry_night_1889.jpg"),
    ("golden_gate.jpg", "munch_scream_1893.jpg"),
    ("stata.jpg", "kandinsky_composition_vii_1913.jpg"),
)
METHODS = {
    "plain": methods.plain,
    "johnson": methods.johnson,
    "adam": methods.adam,
    "ours": methods.ours,
    "ours_long": partial(methods.ours, long=True),
    "ours_fp32": partial(methods.ours, precision="fp32"),
}
SMALL = 32  # pixels, for a first run that does not count


def measure(options: argparse.Namespace, opened: Any, pair: Sequence[Path], method: str) -> dict[str, Any]:
    """One method on one pair: every judged picture as a `Point`, and where it ended."""
    import torch

    from likeness.nets.precision import bfloat16_is_faster
    from likeness.samples.images import read_image
    from likeness.style.objective import Style, cost_options, objective
    from likeness.style.pictures import to_sample

    def problem_and_watch(size: int) -> tuple[methods.Problem, methods.Watch]:
        content, style = (to_sample(read_image(path), size) for path in pair)
        J = objective(opened.net, content, [Style(style)])
        watch = methods.Watch(lambda x: J.parts(x).J, tuple(content.shape[2:]), telling(f"{name_of(pair)}, {method}"))
        return methods.Problem(opened.net, content, style, cost_options()), watch

    METHODS[method](*problem_and_watch(SMALL), 2)  # what is imported and compiled at first use is not the method's
    bfloat16_is_faster.cache_clear()  # its choices are
    problem, watch = problem_and_watch(options.size)
    watch.start()
    chose = METHODS[method](problem, watch, options.evaluations)
    watch.stop()
    machine = {"torch": torch.__version__, "simd": torch.backends.cpu.get_cpu_capability(), "load": os.getloadavg()[0]}
    return {
        "settings": settings_of(options, opened, pair),
        "chose": chose or {},
        "seconds": watch.seconds,
        "evaluations": watch.evaluations,
        "machine": machine,
        "points": watch.points,
    }


def telling(name: str, every: float = 30.0) -> Callable[[methods.Watch], None]:
    """Prints a line every so many seconds."""
    last = time.monotonic()

    def tell(watch: methods.Watch) -> None:
        nonlocal last
        if time.monotonic() - last > every:
            last = time.monotonic()
            seconds, evaluations, J = watch.points[-1]
            print(f"{name}: {evaluations:.0f} evaluations, {seconds:.0f} s, J {J:.4g}", flush=True)

    return tell


def settings_of(options: argparse.Namespace, opened: Any, pair: Sequence[Path]) -> dict[str, Any]:
    """What a curve depends on beside its method."""
    content, style = (path.name for path in pair)
    return {
        "content": content,
        "style": style,
        "fingerprint": opened.fingerprint,
        "size": options.size,
        "evaluations": options.evaluations,
    }


def name_of(pair: Sequence[Path]) -> str:
    return "+".join(path.stem for path in pair)


def measured(options: argparse.Namespace, pairs: Sequence[Sequence[Path]]) -> dict[str, dict[str, dict[str, Any]]]:
    """What lies in OUT, and what is missing there of the methods asked for."""
    import torch

    from likeness.nets.opening import open_net
    from likeness.samples.files import atomic_write

    torch.set_num_threads(1)
    opened = open_net(options.encoder)
    options.out.mkdir(parents=True, exist_ok=True)
    records: dict[str, dict[str, dict[str, Any]]] = {}
    for pair in pairs:
        runs = records.setdefault(name_of(pair), {})
        for method in METHODS:
            path = options.out / f"{name_of(pair)}-{method}.json"
            if path.exists():
                runs[method] = json.loads(path.read_text())
                if runs[method]["settings"] != settings_of(options, opened, pair):
                    raise SystemExit(f"{path} was measured with other settings; name another --out")
            elif method in (options.methods or METHODS):
                if method == "ours_fp32" and runs.get("ours", {}).get("chose", {}).get("precision") == "fp32":
                    print(f"{name_of(pair)}, {method}: the default is float32 here")
                    continue
                runs[method] = measure(options, opened, pair, method)
                atomic_write(path, json.dumps(runs[method]).encode())
                print(f"{path}: {runs[method]['seconds']:.1f} s", flush=True)
    return records


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"{', '.join(METHODS)} (default: all)")
    parser.add_argument("--encoder", default="vgg-slim", help="a name of the catalogue or a file")
    parser.add_argument("--size", type=int, default=512, help="longer side in pixels")
    parser.add_argument("--evaluations", type=int, default=500, help="of the peers, at each scale")
    parser.add_argument("--pair", nargs=2, type=Path, action="append", metavar=("CONTENT", "STYLE"))
    data = data_folder()
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=Path("out/peers"))
    options = parser.parse_args()
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    style = options.data / "style"
    records = measured(options, options.pair or [(style / "content" / a, style / "paintings_pd" / b) for a, b in PAIRS])
    curves = ratios(records)
    if not curves:
        print("without plain there is nothing to compare with")
        return 0

    from peers_plot import draw

    text = caption(records, Path(options.encoder).stem) + "\n" + table(curves)
    (options.out / "peers.md").write_text(text, encoding="utf-8")
    draw(curves, LABELS, options.out / "peers.svg")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
