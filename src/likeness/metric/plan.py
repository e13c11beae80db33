"""The options of a training: checked before hours of work, and remembered by its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InvalidOption, UnknownName, at_least
from ..nets.identity import Architecture
from . import losses, miners
from .loop import Schedule, check_fit
from .processes import Processes

DISTILLATION = "distillation"
LOSSES = (DISTILLATION, *losses.NAMES)


@dataclass(frozen=True)
class Plan:
    """The options of `train_recognition` by their names there. Raises UnknownName or InvalidOption."""

    loss: str
    miner: str
    margin: float | None
    teacher: Path | None
    hints: tuple[str, ...]
    init: Path | None
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    steps: int
    batch: int
    per_subject: int
    optimizer: str
    lr: float
    warmup: int
    every: int
    seed: int
    precision: str
    device: str
    cache: Path | None

    def __post_init__(self) -> None:
        self._check_loss()
        self._check_sizes()
        self._check_batch()
        check_fit(self.optimizer, self.precision, self.every, self.schedule, self.seed)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise InvalidOption(f"device is {self.device!r}, which cannot be used here: {error}") from error

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.lr, self.warmup)

    @property
    def labelled(self) -> bool:
        """Whether the loss compares subjects: batches are then of subjects times samples."""
        return self.loss != DISTILLATION

    def _check_loss(self) -> None:
        if self.loss not in LOSSES:
            near = get_close_matches(self.loss, LOSSES, 1, 0)[0]
            raise UnknownName(
                f"no loss is called {self.loss!r}; did you mean {near!r}? (there are {', '.join(LOSSES)})"
            )
        if self.miner != miners.BATCH_ALL:
            miners.miner(self.miner)
        if self.labelled:
            losses.objective(self.loss, classes=2, code_length=2, miner=self.miner, margin=self.margin)
        if self.loss == DISTILLATION and self.teacher is None:
            raise InvalidOption("loss 'distillation' needs a teacher: --teacher FILE.onnx")
        if self.hints and (self.teacher is None or self.cache is None):
            raise InvalidOption("hints need a teacher and a folder for its maps: --teacher FILE.onnx --cache FOLDER")

    def _check_sizes(self) -> None:
        check_sizes(self.sizes, self.shares)
        if any(width < 1 for width in self.widths) or any(blocks < 0 for blocks in self.blocks):
            raise InvalidOption(f"widths {self.widths} must be at least 1, blocks {self.blocks} at least 0")

    def check_fits(self, architecture: Architecture) -> None:
        """Raises InvalidOption where one of `sizes` is too small for the net."""
        for size in self.sizes:
            try:
                _ = replace(architecture, size=size).map_sizes
            except InvalidOption as error:
                raise InvalidOption(
                    f"size {size} is too small for a net of {len(architecture.widths)} stages"
                ) from error

    def _check_batch(self) -> None:
        at_least(2, batch=self.batch)
        at_least(1, per_subject=self.per_subject)
        world = Processes.from_environment().world
        if self.labelled and (self.per_subject < 2 or self.batch % self.per_subject):
            raise InvalidOption(
                f"a batch of {self.batch} cannot hold {self.per_subject} samples of each subject: "
                "per_subject must be at least 2 and divide batch"
            )
        unit, what = (self.per_subject, "subjects") if self.labelled else (1, "samples")
        if self.batch // unit % world or self.batch // unit // world < 2:
            raise InvalidOption(
                f"{self.batch // unit} {what} in a batch: each of {world} processes needs as many, and at least 2"
            )

    def size_at(self, step: int) -> int:
        """The resolution in pixels of the samples of this step."""
        return size_at(step, steps=self.steps, sizes=self.sizes, shares=self.shares)

    def deciding(self) -> dict[str, Any]:
        """The options that decide what comes out, as plain values; of files only `init`, by its name."""
        others = ("teacher", "every", "precision", "device", "cache")
        kept = {name: value for name, value in asdict(self).items() if name not in others}
        return kept | {"init": str(self.init) if self.init else None}


def check_sizes(sizes: Sequence[int], shares: Sequence[float]) -> None:
    """Raises InvalidOption unless each resolution has its share of the steps."""
    if len(sizes) != len(shares) or not abs(sum(shares) - 1) <= 1e-6 or min(shares) < 0:
        raise InvalidOption(f"sizes {sizes} and shares {shares} must pair up, and the shares add up to 1")


def size_at(step: int, *, steps: int, sizes: Sequence[int], shares: Sequence[float]) -> int:
    """The resolution of a step where each of `sizes` in turn has its share of the steps."""
    ends = np.cumsum(shares) * steps
    return sizes[min(int(np.searchsorted(ends, step, side="right")), len(sizes) - 1)]
