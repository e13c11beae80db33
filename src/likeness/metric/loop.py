"""One training loop for every net whose loss is a function of a batch: readable, resumable to the byte, watched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Collapse, InvalidOption, at_least
from ..nets.precision import faster_in_bfloat16
from ..progress import Progress
from .checkpoint import State, restore, store
from .losses import Terms
from .optimizers import Muon
from .processes import Processes

# A batch is a function of the step alone, so that a resumed run sees what the uninterrupted one would have seen.
Batch = Callable[[int, torch.Generator], tuple[Tensor, Any]]
Objective = Callable[[Tensor, Any, torch.Generator], Terms]
OPTIMIZERS, PRECISIONS = ("adamw", "muon"), ("auto", "fp32", "bf16")


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
        """The batch's mean squared distance; raises Collapse when it rings, and where codes are no numbers any more."""
        n = len(codes)
        spread = 2 * n / max(n - 1, 1) * (1 - float(codes.detach().mean(0).square().sum()))
        if not math.isfinite(spread):
            raise Collapse(f"at step {step} codes are not numbers any more: start again with a smaller learning rate")
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
    options: Mapping[str, Any] | None = None,
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
        options: plain values that decide the run beside those given here; a resumed run must repeat them all.
        every: steps between checkpoints. precision: "fp32", "bf16" or "auto" (what a short probe finds faster; a
        resumed run keeps what it began with).
        on_checkpoint: (averaged net, step) -> figures to report; called at each checkpoint and at the end.

    Under `torchrun` every process takes its part of each batch (`metric.processes`), and only the first one calls back
    and writes. Raises Collapse when `alarm` rings, InvalidOption, WeightsError where the checkpoint is damaged or
    belongs to other options.
    """
    check_fit(optimizer, precision, every, schedule, seed)
    processes = Processes.from_environment()
    processes.join()
    extra = nn.Module() if extra is None else extra
    weights = nn.ModuleList([net, extra])
    state = State(net, _copy(net), extra, _optimizer(optimizer, weights, schedule.peak, weight_decay))
    described = asdict(schedule) | {"optimizer": optimizer, "weight_decay": weight_decay, "average": average}
    described |= {"seed": seed, "processes": processes.world} | dict(options or {})
    file = checkpoint / "checkpoint.safetensors" if checkpoint else None
    start = 0
    if file is not None and file.exists():
        start, precision = restore(file, state, options=described, precision=precision)
    device = next(net.parameters()).device
    if processes.first(start, device) != start:
        raise InvalidOption(f"checkpoint {checkpoint} must be one folder that all processes see")
    processes.start_alike(net, state.averaged, extra)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "auto":
        faster = processes.rank == 0 and _faster_in_bfloat16(net, batch, seed)
        precision = "bf16" if processes.first(faster, device) else "fp32"
    net.train()
    figures: dict[str, float] = {}
    began = time.monotonic()
    for step in range(start, schedule.steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        x, context = processes.share(batch(step, generator))
        for group in state.optimiser.param_groups:
            group["lr"] = schedule(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            codes = net(x)
        terms = objective(codes.float(), context, generator)
        state.optimiser.zero_grad()
        terms.loss.backward()
        processes.average(weights, net)
        nn.utils.clip_grad_norm_(weights.parameters(), 5.0)
        state.optimiser.step()
        _average(state.averaged, net, min(average, (1 + step) / (10 + step)))
        spread = {"spread": alarm.watch(codes, step)} if alarm else {}
        done = step + 1
        if processes.rank == 0 and (done % every == 0 or done == schedule.steps):
            if on_checkpoint:
                figures = on_checkpoint(state.averaged, done)
            if file is not None:
                store(file, state, done, options=described, precision=precision)
        if processes.rank == 0 and on_progress:
            rate = (done - start) / (time.monotonic() - began)
            info: dict[str, Any] = {"loss": float(terms.loss.detach()), "lr": schedule(step)}
            info |= {"steps_per_s": rate, "eta_s": (schedule.steps - done) / rate, "precision": precision}
            on_progress(done, schedule.steps, info | spread | terms.info | figures)
    if start == schedule.steps and processes.rank == 0 and on_checkpoint:  # a finished run, begun again
        on_checkpoint(state.averaged, start)
    return state.averaged.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What torch draws meanwhile on the CPU (a new net's weights) is of `seed`. No generator of the caller's moves,
    nor those of other devices, which `torch.manual_seed` would set."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def check_fit(optimizer: str, precision: str, every: int, schedule: Schedule, seed: int) -> None:
    """Raises InvalidOption unless `fit` could be called with these: before anything is read."""
    if optimizer not in OPTIMIZERS:
        raise InvalidOption(f"optimizer is {optimizer!r}; it must be 'adamw' or 'muon'")
    if precision not in PRECISIONS:
        raise InvalidOption(f"precision is {precision!r}; it must be 'auto', 'fp32' or 'bf16'")
    if every < 1:
        raise InvalidOption(f"every is {every}; there must be at least 1 step between checkpoints")
    at_least(1, steps=schedule.steps)
    at_least(0, warmup=schedule.warmup, seed=seed)
    if not 0 < schedule.peak < math.inf:
        raise InvalidOption(f"lr is {schedule.peak}; it must be above 0")


def _faster_in_bfloat16(net: nn.Module, batch: Batch, seed: int) -> bool:
    """Measured with a copy of the net on part of its first batch."""
    x, _ = batch(0, torch.Generator().manual_seed(seed))
    probe = _copy(net).train()
    for parameter in probe.parameters():
        parameter.requires_grad_(True)
    x = x[: max(2, min(len(x), 32))]
    return faster_in_bfloat16(lambda: probe(x), x.device.type)


def _copy(net: nn.Module) -> nn.Module:
    from copy import deepcopy

    return deepcopy(net).requires_grad_(False)


def _optimizer(name: str, weights: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Kernels and matrices decay; biases, normalisation and PReLU slopes do not."""
    if name == "muon":
        return Muon(weights, lr=lr, weight_decay=weight_decay)
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
