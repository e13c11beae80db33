"""How long until J is what 500 evaluations of plain torch L-BFGS reach, with the full normalised VGG-19?

    python benchmarks/vgg19.py [METHOD ...] [--pairs 1 2 3 4 5 6] [--size 512] [--evaluations 500] [--history 30]
        [--data FOLDER] [--out out/vgg19] [--strict]

plain  torch modules as anybody writes them (reflect padding, conv2d, relu, max_pool2d, Gram matrices by autograd) and
       `torch.optim.LBFGS` (history 100, tolerances off), float32, from the content
fp32   `stylize_sample` at one scale from the same content, with `vgg-slim` standing in first, in float32
auto   the same in bfloat16, where this machine is faster with it; its evaluations being cheaper, it may take twice as
       many

All minimise the same J, of the picture clipped to 0...1, with the gradient masked where a step would lead further out.
J is judged in float32: the traces of float32 runs are such, a bfloat16 run is judged at every tenth evaluation, and
judging does not count. Time is CPU time of one thread, which other work on the machine disturbs least; everything that
a run does counts, from targets and warm-up on. Each run is kept as OUT/PAIR-METHOD.json, with what it was made with; a
rerun goes on with those that are missing (ours end at what plain reached, so it comes first), and refuses those that
were made otherwise. Shares are of plain's own time to the same J; a run that never reaches it has none. Targets are of
all six pairs, in bfloat16 where this machine is faster with it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from peers_methods import PlainCost, Problem
from plain import outward
from targets import Target, add_strict, data_folder, report, said, status
from torch import Tensor

from likeness.nets.opening import open_net
from likeness.nets.perceptual import Vgg
from likeness.nets.precision import bfloat16_is_faster
from likeness.samples.images import read_image
from likeness.style.objective import Objective, Style, cost_options, objective
from likeness.style.pictures import open_encoder, to_sample
from likeness.style.stylize import stylize_sample

PAIRS = (
    ("tubingen", "vangogh_starry_night_1889"),
    ("chicago", "hokusai_great_wave_1831"),
    ("golden_gate", "monet_water_lilies_1919"),
    ("stata", "kandinsky_composition_vii_1913"),
    ("taj_mahal", "turner_shipwreck_1810"),
    ("cornell", "vangogh_wheat_field_cypresses_1889"),
)
METHODS = ("plain", "fp32", "auto")
BETA = 1e4
LEVELS = (1.0, 1.05)  # times J500
JUDGED = 10  # evaluations of a bfloat16 run between two looks of the judge
Trace = list[tuple[float, float]]  # CPU seconds, J


class Reached(Exception):
    """Ends a run that has nothing left to show."""


def plain_cost(net: Vgg, content: Tensor, style: Tensor) -> Callable[[Tensor], tuple[float, Tensor]]:
    """J and gradient, written down without anything of the library but the weights."""

    plain_J = PlainCost(Problem(net, content, style, cost_options(style_weight=BETA)), content, style)

    def cost(x: Tensor) -> tuple[float, Tensor]:
        y = x.detach().clamp(0, 1).requires_grad_(True)
        total = plain_J(y)
        gradient = torch.autograd.grad(total, y)[0]
        return float(total.detach()), gradient.masked_fill_(outward(x, gradient), 0.0)

    return cost


def plain(net: Vgg, content: Tensor, style: Tensor, evaluations: int) -> Trace:
    began = time.process_time()
    cost = plain_cost(net, content, style)
    x = content.clone().requires_grad_(True)
    factor = 1 / float(cost(x)[1].square().mean().sqrt())  # or torch's absolute limits end the run at once
    walk = torch.optim.LBFGS([x], max_iter=1, history_size=100, tolerance_grad=0, tolerance_change=0)
    trace: Trace = []

    def closure() -> float:
        J, gradient = cost(x)
        x.grad = (gradient * factor).contiguous()
        trace.append((time.process_time() - began, J))
        return J * factor

    for _ in range(evaluations):
        walk.step(closure)  # type: ignore[arg-type]
    return trace


def ours(net: Vgg, content: Tensor, style: Tensor, judge: Objective, goal: float, options: dict[str, Any]) -> Trace:
    """Until J is at `goal`, or all steps are taken."""
    began, judging = time.process_time(), 0.0
    low = options["precision"] == "bf16"
    trace: Trace = []

    def after(done: int, _: int, info: dict[str, Any]) -> None:
        nonlocal judging
        if not done or (low and done % JUDGED):
            return
        now = time.process_time()
        J = judge.parts(info["sample"]()).J if low else info["J"]
        trace.append((now - began - judging, J))
        judging += time.process_time() - now
        if goal >= J:
            raise Reached

    run = {"style_weight": BETA, "tolerance": 0.0, "scales": 1} | options
    with suppress(Reached):
        stylize_sample(net, content, [Style(style)], on_progress=after, **run)
    return trace


def seconds_to(trace: Trace, goal: float) -> float | None:
    """CPU time until the best J so far was at most `goal`."""
    best = accumulate((J for _, J in trace), min)
    return next((second for (second, _), J in zip(trace, best, strict=True) if goal >= J), None)


def shares(pair: dict[str, Trace]) -> dict[str, float | None]:
    """ "fp32 1.05" -> time to 1.05 J500 as a share of plain's own."""
    J500 = min(J for _, J in pair["plain"])
    found: dict[str, float | None] = {}
    for name, trace in pair.items():
        for level in LEVELS if name != "plain" else ():
            mine, theirs = seconds_to(trace, level * J500), seconds_to(pair["plain"], level * J500)
            found[f"{name} {level:g}"] = mine / theirs if mine is not None and theirs else None
    return found


def summary(pairs: list[dict[str, Trace]]) -> dict[str, float]:
    """The mean share over pairs; absent where some pair never got there."""
    each = [shares(pair) for pair in pairs]
    return {
        name: statistics.mean(one[name] for one in each)  # type: ignore[type-var]
        for name in (each[0] if each else ())
        if all(one.get(name) is not None for one in each)
    }


def made_with(options: Any, method: str, goal: float) -> dict[str, Any]:
    """What a run's time depends on, beside the machine. goal: the J at which ours may end."""
    used = [large(options)] if method == "plain" else [large(options), "vgg-slim"]
    nets = [open_net(one).fingerprint for one in used]
    found = {"size": options.size, "evaluations": options.evaluations, "nets": nets, "style_weight": BETA}
    return found if method == "plain" else found | {"history": options.history, "goal": goal}


def large(options: Any) -> Path:
    return options.data / "weights/vgg19_normalised_relu4_1.npz"


def samples(options: Any, content: str, style: str) -> tuple[Tensor, Tensor]:
    """The two of a pair."""
    pictures = options.data / "style"
    files = pictures / f"content/{content}.jpg", pictures / f"paintings_pd/{style}.jpg"
    photograph, painting = (to_sample(read_image(file), options.size) for file in files)
    return photograph, painting


def measure(options: Any, content_name: str, style_name: str, method: str, goal: float) -> Trace:
    """goal: the J at which ours may end."""
    content, style = samples(options, content_name, style_name)
    net = open_encoder(large(options))
    if method == "plain":
        return plain(net, content, style, options.evaluations)
    judge = objective(net, content, [Style(style)], style_weight=BETA)
    low = method == "auto"
    run: dict[str, Any] = {"history": options.history, "warm_up": open_encoder("vgg-slim")}
    run |= {"precision": "bf16" if low else "fp32", "steps": options.evaluations * (2 if low else 1)}
    return ours(net, content, style, judge, goal, run)


def measured(options: Any, content: str, style: str, methods: list[str]) -> dict[str, Trace]:
    """What lies in OUT, and what is missing there of `methods`."""
    pair: dict[str, Trace] = {}
    for method in METHODS:
        file = options.out / f"{content}-{style}-{method}.json"
        goal = min((J for _, J in pair.get("plain", [])), default=0.0)
        wanted = made_with(options, method, goal)
        if file.exists():
            kept = json.loads(file.read_text())
            if kept["made_with"] != wanted:
                raise SystemExit(f"{file} was measured with other settings; name another --out")
        elif method in methods:
            kept = {"made_with": wanted, "trace": measure(options, content, style, method, goal)}
            file.write_text(json.dumps(kept))
        if file.exists():
            pair[method] = kept["trace"]
            print(f"{content} x {style}, {method}: {pair[method][-1][0]:.0f} s", flush=True)
    return pair


def main() -> int:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--pairs", type=int, nargs="+", default=list(range(1, len(PAIRS) + 1)), metavar="N")
    parser.add_argument("--size", type=int, default=512, help="longer side, pixels")
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--history", type=int, default=30)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--out", type=Path, default=Path("out/vgg19"))
    add_strict(parser)
    options = parser.parse_args()
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    usual = [method for method in METHODS if method != "auto" or bfloat16_is_faster()]
    methods = options.methods or usual
    pairs: list[dict[str, Trace]] = []
    for content, style in (PAIRS[number - 1] for number in options.pairs):
        pair = measured(options, content, style, methods)
        if "plain" in pair:
            pairs.append(pair)
            shown = ", ".join(f"{k} {'–' if v is None else format(v, '.0%')}" for k, v in shares(pair).items())
            print(f"{content} x {style}: {shown}", flush=True)
    bounds = {"fp32": 0.8, "auto": 0.35}  # of machines with AMX; 0.5 where bfloat16 is at least twice as fast
    found = summary(pairs) | {"pairs": len(pairs)}
    targets = [Target("pairs", len(PAIRS), least=True)]
    targets += [Target(f"{name} {level:g}", bounds[name]) for name in usual[1:] for level in LEVELS]
    (options.out / "vgg19.json").write_text(json.dumps({"shares": found, "targets": report(targets, found)}, indent=1))
    shown = ", ".join(f"{name} {value:.0%}" for name, value in summary(pairs).items())
    print(f"mean of {len(pairs)} pairs: {shown} | {said(targets, found)}")
    return status(all(target.met(found) for target in targets), strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
