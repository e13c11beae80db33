"""Random, semi-hard and hard triplets (and all of them) on the same budget: does the choice of triplets matter?

    OMP_NUM_THREADS=1 nice python benchmarks/triplets.py --data FACES --out out/triplets

FACES holds one folder of aligned 112x112 crops per person. For each seed every miner trains the same small net from the
same initial weights on the same batches for the same number of steps; every tenth person is held out and only looked
at. With --after STEPS all start from a net that learnt from random triplets first. Each run is kept as a JSON file in
--out and not repeated; the table is written there and shown.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from targets import data_folder
from torch import Tensor, nn

from likeness.evaluation.rates import best_threshold, threshold_at_far
from likeness.metric import losses, miners
from likeness.metric.augment import to_input
from likeness.metric.data import Crops, held_out, load_crops
from likeness.metric.loop import Schedule, fit
from likeness.metric.samplers import SubjectsTimesSamples
from likeness.nets import identity
from likeness.nets.identity import Architecture, Tower

SIZE = 64
NET = Architecture(size=SIZE, stem=8, widths=(32, 64), blocks=(1, 1))  # 3 MMAC, 0.12 M parameters


def read(folder: Path, out: Path) -> Crops:
    """The crops, shrunk once to 64 pixels; kept in `out`."""
    kept = out / "crops.npz"
    if kept.exists():
        with np.load(kept) as file:
            return Crops(file["images"], file["subjects"], ())
    crops = load_crops(folder)
    small = [
        ((to_input(torch.from_numpy(crops.images[i : i + 256]), size=SIZE) + 1) * 127.5).round().clamp(0, 255).byte()
        for i in range(0, len(crops), 256)
    ]
    images = torch.cat(small).permute(0, 2, 3, 1).contiguous().numpy()
    np.savez(kept, images=images, subjects=crops.subjects)
    return Crops(images, crops.subjects, crops.names)


def view(images: np.ndarray, generator: torch.Generator) -> Tensor:
    """Mirror half of the crops, shift all of them by up to three pixels: enough for a few epochs, and nearly free."""
    x = to_input(torch.from_numpy(images))
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    return x.roll((down, right), (-2, -1)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def codes_of(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """Unit codes (n, 128): mean of crop and mirror image."""
    net.eval()
    parts = []
    for i in range(0, len(images), 256):
        x = to_input(torch.from_numpy(images[i : i + 256])).contiguous(memory_format=torch.channels_last)
        parts.append(nn.functional.normalize(net(x) + net(x.flip(-1))))
    return torch.cat(parts).numpy()


def judge(net: nn.Module, strangers: Crops) -> dict[str, float]:
    """Figures on people never trained on: TAR at FAR 1e-2 over all pairs, and accuracy on as many mated as non-mated
    pairs with the threshold taken from the other half of the people."""
    codes, who = codes_of(net, strangers.images), strangers.subjects
    a, b = np.triu_indices(len(codes), 1)
    d = np.maximum(2 - 2 * (codes @ codes.T)[a, b], 0)
    same = who[a] == who[b]
    tar = float((d[same] <= threshold_at_far(d[~same], 1e-2)).mean())
    rng = np.random.default_rng(0)
    half = np.searchsorted(np.unique(who), who) % 2
    pairs = []
    for side in (0, 1):
        inside = (half[a] == side) & (half[b] == side)
        mated = d[inside & same]
        pairs.append((mated, rng.choice(d[inside & ~same], len(mated), replace=False)))
    accuracy = []
    for fitted, tested in ((0, 1), (1, 0)):
        threshold, _ = best_threshold(*pairs[fitted])
        mated, others = pairs[tested]
        accuracy.append(((mated <= threshold).mean() + (others > threshold).mean()) / 2)
    people = len(np.unique(who[a][same]))
    return {"accuracy": float(np.mean(accuracy)), "tar": tar, "mated_pairs": int(same.sum()), "people": people}


def start(seed: int, train: Crops, options: argparse.Namespace) -> Tower:
    """The net that every miner starts from: new, or after `options.after` steps on random triplets."""
    torch.manual_seed(seed)
    if not options.after:
        return Tower(NET)
    file = options.out / f"start-{seed}-{options.after}.safetensors"
    if not file.exists():
        print(f"seed {seed}: {options.after} steps on random triplets for all", flush=True)
        first = argparse.Namespace(**vars(options) | {"steps": options.after, "after": 0})
        identity.save(fine_tune(Tower(NET), "random", seed, train, first)[0], file, half=False)
    return identity.load(file)


def fine_tune(
    net: Tower, miner: str, seed: int, crops: Crops, options: argparse.Namespace
) -> tuple[Tower, dict[str, Any]]:
    """Train `net`; the averaged net, and what was seen on the way in eighths of the run."""
    sampler = SubjectsTimesSamples(
        crops.subjects, subjects_per_batch=options.subjects, samples_per_subject=4, seed=seed + 1000 * options.after
    )
    objective = losses.Triplet(miner=miner, margin=options.margin)
    trace: list[dict[str, float]] = []
    recent: list[dict[str, float]] = []

    def batch(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index = sampler.batch(step)
        return view(crops.images[index], generator), torch.from_numpy(crops.subjects[index])

    def loss(codes: Tensor, subjects: Tensor, generator: torch.Generator) -> losses.Terms:
        terms = objective(codes, subjects, generator=generator)
        with torch.no_grad():  # the share of *all* triplets still active: the same yardstick for every miner
            d = losses.squared_distances(codes, codes)
            _, active, count = losses.batch_all(d, subjects, margin=options.margin)
        apart = terms.info["non_mated_distance"]
        recent.append({"mined": terms.info["active_share"], "all": active / count, "apart": apart})
        if len(recent) == options.steps // 8:
            trace.append({key: float(np.mean([r[key] for r in recent])) for key in recent[0]})
            recent.clear()
        return terms

    began, used = time.monotonic(), time.process_time()

    def report(done: int, total: int, info: dict[str, Any]) -> None:
        if done % 50 == 0:
            eta = (time.monotonic() - began) / done * (total - done)
            line = f"loss {info['loss']:.3f} active {info['active_share']:.2f} eta {eta:.0f} s"
            print(f"{miner} seed {seed}: {done}/{total} {line}", flush=True)

    schedule = Schedule(options.steps, options.lr, min(100, options.steps // 8))
    averaged = fit(net, batch, loss, schedule=schedule, seed=seed, precision="fp32", on_progress=report)
    result: dict[str, Any] = {"miner": miner, "seed": seed, "steps": options.steps, "batch": options.subjects * 4}
    result |= {"wall_s": round(time.monotonic() - began), "cpu_s": round(time.process_time() - used)}
    assert isinstance(averaged, Tower)
    return averaged, result | {"trace": trace}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: one row per miner, mean over seeds (and each seed's value); active shares early, midway and late."""
    rows = [
        "| triplets | accuracy | TAR at FAR 1e-2 | mined and active | active among all of the batch | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for miner in dict.fromkeys(r["miner"] for r in results):
        mine = [r for r in results if r["miner"] == miner]
        cells = [miner]
        for key in ("accuracy", "tar"):
            values = [r[key] for r in mine]
            cells.append(f"{np.mean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})")
        for key in ("mined", "all"):
            traces = np.array([[part[key] for part in r["trace"]] for r in mine])
            cells.append(" → ".join(f"{traces[:, i].mean():.2f}" for i in (0, 4, -1)) if traces.size else "–")
        cells.append(f"{np.mean([r['cpu_s'] for r in mine]):.0f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = data_folder()
    parser.add_argument("--data", type=Path, default=data / "faces" / "train")
    parser.add_argument("--out", type=Path, default=Path("out/triplets"))
    parser.add_argument("--miners", nargs="+", default=["random", "semi-hard", "hard"], choices=miners.NAMES)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--after", type=int, default=0, help="steps on random triplets first, the same for all")
    parser.add_argument("--subjects", type=int, default=32, help="per batch, four samples of each")
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=2e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    crops = read(options.data, options.out)
    held = held_out(crops.subjects, every=10)
    train, strangers = (Crops(crops.images[keep], crops.subjects[keep], ()) for keep in (~held, held))
    results = []
    for seed in range(options.seeds):
        before = {"miner": "(before)", "seed": seed, "trace": [], "cpu_s": 0}
        results.append(before | judge(start(seed, train, options), strangers))
    for seed in range(options.seeds):
        for miner in options.miners:
            file = options.out / f"{miner}-{seed}-{options.after}+{options.steps}.json"
            if not file.exists():
                net, result = fine_tune(start(seed, train, options), miner, seed, train, options)
                file.write_text(json.dumps(result | judge(net, strangers), indent=1))
            results.append(json.loads(file.read_text()))
    name = f"{options.after}+{options.steps}"
    (options.out / f"triplets-{name}.json").write_text(json.dumps(results, indent=1))
    (options.out / f"table-{name}.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
