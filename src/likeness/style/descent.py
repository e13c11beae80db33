"""Moving a sample downhill: gradient descent (the chapter's), Adam or L-BFGS, made safe.

Costs of very different size are all the same here: J is multiplied by one factor so that the gradient at the start
has RMS 1. (Dividing by J's start value is not enough: torch's L-BFGS drops every pair with y's <= 1e-10 and then
stands still.) Whatever a step breaks, the best sample seen is kept, and the walk goes on from there at half the rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidOption, WeightsError
from ..nets import weights_file
from . import lbfgs

Cost = Callable[[Tensor], tuple[float, Tensor]]
KIND = "likeness.style-checkpoint.4"  # a later number for what earlier versions cannot go on with

# Step sizes for a gradient of RMS 1 and samples of 0...1: L-BFGS finds its own length, Adam moves each value by about
# the rate, gradient descent starts small and grows while J falls.
RATES = {"lbfgs": 1.0, "adam": 0.02, "gd": 0.01}
WORSE = 3.0  # J above this many times the lowest counts as a failed step


@dataclass
class Descent:
    """A walk that can be stopped, stored and taken up again: the sample `x`, the best one seen, and the trace of J.

    level: the lowest J since the last failed step, by which steps are judged: a compact best sample has another J than
    `best_J`.
    rate: of steps, see RATES; of L-BFGS a share of the first and of the longest one, see `lbfgs.move`.
    history: pairs that L-BFGS remembers. compact: they are kept in bfloat16, and the best sample in float16, of which a
    picture of 8 bits shows nothing: half the memory, for samples that fill it.
    """

    x: Tensor
    optimizer: str = "lbfgs"
    history: int = 10
    compact: bool = False
    rate: float = 0.0
    factor: float = 0.0
    best_J: float = math.inf
    level: float = math.inf
    best: Tensor = field(default_factory=lambda: torch.empty(0))
    trace: list[float] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.optimizer not in RATES:
            raise InvalidOption(f"optimizer is {self.optimizer!r}; it must be 'lbfgs', 'adam' or 'gd'")
        self.rate = self.rate or RATES[self.optimizer]

    def run(
        self,
        cost: Cost,
        steps: int,
        *,
        tolerance: float = 0.0,
        window: int = 50,
        on_step: Callable[[Descent], None] | None = None,
    ) -> Descent:
        """Evaluate `cost` (x -> J and dJ/dx, which it gives away) until there are `steps` evaluations in the trace;
        returns itself.

        tolerance: stop earlier when the last `window` evaluations lowered the best J by less than this share.
        on_step: called after each evaluation; what it raises ends the walk, which can be taken up again.
        """
        self.x = self.x.detach().clone(memory_format=torch.contiguous_format)
        optimizer = self._new()
        if optimizer and self.state:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: self.state}})
        while len(self.trace) < steps and not self._still(tolerance, window):
            gradient = self._evaluate(cost)
            J = self.trace[-1]
            if self.best_J == J and not gradient.any():  # there is nowhere to go
                break
            failed = not math.isfinite(J) or self.level * (1.0 if self.optimizer == "gd" else WORSE) < J
            if not failed:
                self.level = min(self.level, J)
                self._move(gradient, optimizer)
                failed = not _finite(self.x)
            del gradient
            if failed:
                self.rate *= 0.5
                self.x.copy_(self.best)
                self.level = math.inf
                self.state = {}
                optimizer = self._new()
            else:
                self.rate = self._faster()
            if on_step:
                on_step(self)
        return self

    def _evaluate(self, cost: Cost) -> Tensor:
        """The gradient at x, scaled; J goes into the trace. Where either is not a number: zeros, and infinity."""
        J, gradient = cost(self.x)
        gradient = gradient.contiguous()
        finite = math.isfinite(J) and _finite(gradient)
        if not self.trace:
            if not finite:
                raise InvalidOption(
                    f"J or its gradient is not finite at the start (J = {J}): the weights are too large"
                )
            squares = sum(float(part.double().square().sum()) for part in gradient.view(-1).split(lbfgs.CHUNK))
            self.factor = 1 / max(math.sqrt(squares / gradient.numel()), 1e-300)
            self.best = torch.empty_like(self.x, dtype=torch.float16 if self.compact else None)
        if finite and self.best_J > J:
            self.best_J = J
            self.best.copy_(self.x)
        self.trace.append(J if finite else math.inf)
        for part in gradient.view(-1).split(lbfgs.CHUNK):  # in float64: small weights make gradients of 1e-40
            part.copy_(part.double() * self.factor if finite else torch.zeros_like(part))
        return gradient

    @torch.no_grad()
    def _move(self, gradient: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
        if optimizer is None:
            lbfgs.move(self.x, gradient, self.state, rate=self.rate, history=self.history, compact=self.compact)
            return
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        self.x.grad = gradient
        optimizer.step()
        self.x.grad = None
        self.state = optimizer.state_dict()["state"].get(0, {})

    def _new(self) -> torch.optim.Optimizer | None:
        if self.optimizer == "lbfgs":
            return None
        if self.optimizer == "adam":
            return torch.optim.Adam([self.x], lr=self.rate, betas=(0.9, 0.99))
        return torch.optim.SGD([self.x], lr=self.rate)

    def _faster(self) -> float:
        """The rate after a step that succeeded: gradient descent grows, the others recover from failed steps."""
        if self.optimizer == "gd":
            return self.rate * 1.1
        return min(max(self.rate, RATES[self.optimizer]), self.rate * 1.1)

    def _still(self, tolerance: float, window: int) -> bool:
        if tolerance <= 0 or len(self.trace) <= window:
            return False
        return self.best_J > (1 - tolerance) * min(self.trace[:-window])

    def save(self, path: Path, **more: Any) -> None:
        """Write everything that the walk's continuation depends on, and `more` (JSON), as one safetensors file."""
        tensors: dict[str, Tensor] = {}
        tree = {name: _pack(getattr(self, name), name, tensors) for name in self.__dataclass_fields__}
        weights_file.write(path, tensors, {KIND: json.dumps({"walk": tree, "more": more})})

    @classmethod
    def load(cls, path: Path) -> tuple[Descent, dict[str, Any]]:
        """The walk and what was stored beside it. Raises WeightsError where the file is not a checkpoint."""
        tensors, metadata = weights_file.read(path)
        if KIND not in metadata:
            raise WeightsError(f"{path} is not a checkpoint of a stylisation")
        with weights_file.damaged(path):
            stored = json.loads(metadata[KIND])
            walk = cls(**{name: _unpack(value, tensors) for name, value in stored["walk"].items()})
        return walk, stored["more"]


def _finite(x: Tensor) -> bool:
    """Without the tensors as large as x that `isfinite` makes; a sum that overflows is as bad."""
    return math.isfinite(float(x.sum()))


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Tensors, numbers and text in dicts and lists -> JSON, with the tensors set aside by name."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": {key: _pack(one, f"{name}.{key}", tensors) for key, one in value.items()}}
    if isinstance(value, list):
        return [_pack(one, f"{name}.{i}", tensors) for i, one in enumerate(value)]
    return {"float": value.hex()} if isinstance(value, float) else value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].clone()
    if "float" in value:
        return float.fromhex(value["float"])
    return {key: _unpack(one, tensors) for key, one in value["dict"].items()}
