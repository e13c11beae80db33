"""One training loop for every net whose loss is a function of a batch: readable, resumable to the byte, watched."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Collapse, InvalidOption
from .data import Progress
from .losses import Terms
from .optimizers import Muon

# A batch is a function of the step alone, so that a resumed run sees what the uninterrupted one would have seen.
Batch = Callable[[int, torch.Generator], tuple[Tensor, Any]]
Objective = Callable[[Tensor, Any, torch.Generator], Terms]


@dataclass
class CollapseAlarm:
    """Stops a run in which all codes meet in one point (triplet loss then stands at its margin and learns nothing).

    It rings when the mean squared distance within a batch stays below `floor` for `patience` steps in a row:
    for unit codes it is `2 n/(n-1) (1 - |mean code|^2)`, about 2 in a healthy net.
    """

    floor: float = 0.02
    patience: int = 100
    _low: int = field(default=0, repr=False)

    def watch(self, codes: Tensor, step: int) -> float:
        """The batch's mean squared distance; raises Collapse when it rings."""
        n = len(codes)
        spread = 2 * n / max(n - 1, 1) * (1 - float(codes.detach().mean(0).square().sum()))
        self._low = self._low + 1 if spread < self.floor else 0
        if self._low >= self.patience:
            raise Collapse(
                f"at step {step} all codes have met in one point "
                f"(mean squared distance {spread:.1e}, low for {self.patience} steps): "
                "the net gives every sample the same code. Start again with a smaller learning rate, "
                "semi-hard instead of hard triplets, or more subjects in a batch"
            )
        return spread


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine down to `floor` of the peak learning rate (Loshchilov & Hutter 2017, eq. 5)."""

    steps: int
    peak: float = 2e-3
    warmup: int = 200
    floor: float = 0.01

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def fit(
    net: nn.Module,
    batch: Batch,
    objective: Objective,
    *,
    schedule: Schedule,
    extra: nn.Module | None = None,
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    average: float = 0.999,
    seed: int = 0,
    checkpoint: Path | None = None,
    every: int = 500,
    precision: str = "auto",
    alarm: CollapseAlarm | None = None,
    on_checkpoint: Callable[[nn.Module, int], dict[str, float]] | None = None,
    on_progress: Progress | None = None,
) -> nn.Module:
    """Train `net` in place for `schedule.steps` steps; return the moving average of its weights, in eval mode.

    Arguments:
        batch: (step, generator) -> (input, context). objective: (codes, context, generator) -> Terms.
        extra: a module with weights of its own beside the net (ArcFace's class vectors).
        optimizer: "adamw" or "muon" (`metric.optimizers`).
        average: decay of the moving average; its weights are what counts (Polyak averaging).
        checkpoint: a folder; a run found there goes on where it stopped and ends in the bytes of an uninterrupted one.
        every: steps between checkpoints. precision: "fp32", "bf16" or "auto" (what a short probe finds faster).
        on_checkpoint: (averaged net, step) -> figures to report.

    Under `torchrun`, every process takes its share of each batch and gradients are averaged (DistributedDataParallel).
    Raises Collapse when `alarm` rings, InvalidOption where precision is unknown.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    averaged = _copy(net)
    weights = nn.ModuleList([net] if extra is None else [net, extra])
    optimiser = _optimizer(optimizer, weights, schedule.peak, weight_decay)
    start = _restore(checkpoint, net, averaged, extra, optimiser) if checkpoint else 0
    runner: nn.Module = net
    if world > 1:
        from torch.nn.parallel import DistributedDataParallel

        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group()
        runner = DistributedDataParallel(net)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    low = bfloat16_is_faster(net, batch, seed) if precision == "auto" else _known(precision) == "bf16"
    device = next(net.parameters()).device
    net.train()
    figures: dict[str, float] = {}
    began = time.monotonic()
    for step in range(start, schedule.steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        x, context = batch(step, generator)
        if world > 1:
            x, context = _share(x, rank, world), _share(context, rank, world)
        for group in optimiser.param_groups:
            group["lr"] = schedule(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            codes = runner(x)
        terms = objective(codes.float(), context, generator)
        optimiser.zero_grad()
        terms.loss.backward()
        nn.utils.clip_grad_norm_(weights.parameters(), 5.0)
        optimiser.step()
        _average(averaged, net, min(average, (1 + step) / (10 + step)))
        spread = alarm.watch(codes, step) if alarm else float("nan")
        done = step + 1
        if rank == 0 and (done % every == 0 or done == schedule.steps):
            if on_checkpoint:
                figures = on_checkpoint(averaged, done)
            if checkpoint:
                _store(checkpoint, done, net, averaged, extra, optimiser)
        if on_progress and rank == 0:
            rate = (done - start) / (time.monotonic() - began)
            info: dict[str, Any] = {
                "loss": float(terms.loss.detach()),
                "lr": schedule(step),
                "steps_per_s": rate,
                "spread": spread,
            }
            info |= (
                {"eta_s": (schedule.steps - done) / rate, "precision": "bf16" if low else "fp32"} | terms.info | figures
            )
            on_progress(done, schedule.steps, info)
    return averaged.eval()


def bfloat16_is_faster(net: nn.Module, batch: Batch, seed: int = 0, *, gain: float = 1.15) -> bool:
    """Whether forward and backward under bfloat16 take less than 1/`gain` of float32's time here: a short probe."""
    x, _ = batch(0, torch.Generator().manual_seed(seed))
    probe = _copy(net).train()
    for parameter in probe.parameters():
        parameter.requires_grad_(True)
    x = x[: max(2, min(len(x), 32))]
    times = {}
    for low in (False, True, False, True):
        start = time.perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            out = probe(x)
        out.float().sum().backward()
        times[low] = time.perf_counter() - start  # the second round counts: the first compiles kernels
    return times[False] > gain * times[True]


def _known(precision: str) -> str:
    if precision not in ("fp32", "bf16"):
        raise InvalidOption(f"precision is {precision!r}; it must be 'auto', 'fp32' or 'bf16'")
    return precision


def _copy(net: nn.Module) -> nn.Module:
    from copy import deepcopy

    return deepcopy(net).requires_grad_(False)


def _optimizer(name: str, weights: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Kernels and matrices decay; biases, normalisation and PReLU slopes do not."""
    if name == "muon":
        return Muon(weights, lr=lr, weight_decay=weight_decay)
    if name != "adamw":
        raise InvalidOption(f"optimizer is {name!r}; it must be 'adamw' or 'muon'")
    parameters = list(weights.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


@torch.no_grad()
def _average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    for mean, new in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - decay)
        else:
            mean.copy_(new)


def _share(part: Any, rank: int, world: int) -> Any:
    if isinstance(part, tuple):
        return tuple(_share(item, rank, world) for item in part)
    return part[rank::world] if isinstance(part, Tensor) else part


def _store(
    folder: Path,
    step: int,
    net: nn.Module,
    averaged: nn.Module,
    extra: nn.Module | None,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Everything a resumed run needs, as one safetensors file."""
    from safetensors.torch import save

    from ..samples.files import atomic_write

    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
    tensors |= {f"extra.{name}": value for name, value in (extra.state_dict() if extra else {}).items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(folder / "checkpoint.safetensors", save(contiguous, {"step": json.dumps(step)}))


def _restore(
    folder: Path, net: nn.Module, averaged: nn.Module, extra: nn.Module | None, optimiser: torch.optim.Optimizer
) -> int:
    """Load what `_store` wrote, if anything; return the step to go on with."""
    from safetensors import safe_open

    file = folder / "checkpoint.safetensors"
    if not file.exists():
        return 0
    with safe_open(str(file), "pt") as stored:
        step = int(json.loads(stored.metadata()["step"]))
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    net.load_state_dict(part("net."))
    averaged.load_state_dict(part("averaged."))
    if extra is not None:
        extra.load_state_dict(part("extra."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimiser.").items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return step
