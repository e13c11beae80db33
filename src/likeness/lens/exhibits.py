"""The samples that a report looks at: once in batches, and those that it shows again, one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption
from ..samples.files import atomic_write
from ..samples.images import read_image
from .models import Model
from .models import batches as picture_batches
from .panels import Panel, draw, write
from .patches import TopPatches

BATCH = 32
SIDE, TILE = 224, 112  # pixels of a drawing, and of one among many


@dataclass(eq=False)
class Exhibits:
    """`batches()`: all samples (b, c, *spatial), in order. `sample(i)` (c, *spatial), `name(i)`, `title(i)` (a shorter
    name, to be shown), `subject(i)` (None where nobody said): of number i, once it was among them. `kind`: what they
    are, in the plural. `given`: what they were called before any was looked at. `total`: how many there are at most.
    `low`, `high`: the range of their values, known when all were looked at. `skipped`: files that cannot be used,
    `unreadable`: those of them that cannot even be read."""

    kind: str
    given: tuple[str, ...]
    total: int
    batches: Callable[[], Generator[Tensor, None, None]]
    sample: Callable[[int], Tensor]
    name: Callable[[int], str]
    title: Callable[[int], str]
    subject: Callable[[int], str | None]
    low: float
    high: float
    skipped: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)

    def shown(self, i: int) -> np.ndarray:
        """Sample i as it is drawn: (c, *spatial), values 0...1."""
        return self.scaled(self.sample(i))

    def scaled(self, x: Tensor) -> np.ndarray:
        return ((x.detach().float().cpu() - self.low) / ((self.high - self.low) or 1.0)).numpy()


def of_pictures(model: Model, files: Sequence[Path], subjects: Sequence[str | None]) -> Exhibits:
    """Pictures as `model` takes them, called by their files."""
    used: list[Path] = []
    subject_of = dict(zip(files, subjects, strict=True))

    def batches() -> Generator[Tensor, None, None]:
        used.clear()
        left_out = {"skipped": exhibits.skipped, "unreadable": exhibits.unreadable}
        for one in left_out.values():
            one.clear()
        for x, kept in picture_batches(model, files, size=BATCH, **left_out):
            used.extend(kept)
            yield x

    def sample(i: int) -> Tensor:
        picture = model.picture(read_image(used[i]))
        if picture is None:
            raise InvalidOption(f"{used[i]} was changed while the report was made; run it again")
        return model.tensor(picture)

    above = os.path.commonpath([Path(file).absolute().parent for file in files]) if files else ""
    exhibits = Exhibits(
        "pictures",
        tuple(map(str, files)),
        len(files),
        batches,
        sample,
        lambda i: str(used[i]),
        lambda i: os.path.relpath(used[i], above),
        lambda i: subject_of[used[i]],
        model.low,
        model.high,
    )
    return exhibits


def of_samples(samples: Any, names: Sequence[str] | None, subjects: Sequence[str] | None) -> Exhibits:
    """Samples of any kind: a tensor or array (n, c, *spatial), or whatever has a length and gives (c, *spatial), or a
    tuple that begins with one, for a number: a list, a `Dataset`."""
    if not hasattr(samples, "__len__") or not hasattr(samples, "__getitem__"):
        raise InvalidOption(
            f"samples are a tensor (n, c, *spatial), a list or a data set with a length, as those that hit are looked "
            f"at again; this is a {type(samples).__name__}"
        )
    total = len(samples)
    for what, given in (("names", names), ("subjects", subjects)):
        if given is not None and len(given) != total:
            raise InvalidOption(f"there are {len(given)} {what} for {total} samples")

    def sample(i: int) -> Tensor:
        item = samples[i]
        return torch.as_tensor(item[0] if isinstance(item, (tuple, list)) else item)

    def batches() -> Generator[Tensor, None, None]:
        shape: tuple[int, ...] = ()
        for first in range(0, total, BATCH):
            parts = [sample(i) for i in range(first, min(first + BATCH, total))]
            shape = shape or tuple(parts[0].shape)
            for i, part in enumerate(parts, first):
                if tuple(part.shape) != shape:
                    raise InvalidOption(f"{name(i)} is {tuple(part.shape)}, {name(0)} {shape}; bring them to one size")
            x = torch.stack(parts)
            if not 3 <= x.ndim <= 5:
                raise InvalidOption(f"a sample is (c, *spatial) with 1 to 3 spatial axes, not {tuple(x.shape[1:])}")
            exhibits.low = min(exhibits.low, float(x.min()))
            exhibits.high = max(exhibits.high, float(x.max()))
            yield x

    def name(i: int) -> str:
        return f"sample {i}" if names is None else names[i]

    exhibits = Exhibits(
        "samples",
        tuple(names or ()),
        total,
        batches,
        sample,
        name,
        name,
        lambda i: None if subjects is None else subjects[i],
        float("inf"),
        -float("inf"),
    )
    return exhibits


@dataclass(frozen=True, eq=False)
class Look:
    """What the pages of a report are made from. `folder`: where they go. `shapes`: layer -> the shape of its output, in
    the order of computation. `shown`: layer -> units with a page. `written`: files so far, relative to the folder."""

    folder: Path
    net: nn.Module
    exhibits: Exhibits
    found: TopPatches
    shapes: dict[str, tuple[int, ...]]
    shown: dict[str, tuple[int, ...]]
    written: set[str] = field(default_factory=set)

    def write(self, name: str, data: str) -> None:
        """Raises StorageError."""
        atomic_write(self.folder / name, data.encode())
        self.written.add(name)

    def draw(self, stem: str, shown: Sequence[Panel], *, columns: int = 1, side: int = SIDE) -> str:
        """Draw panels into a file, whose name is returned, relative to the folder."""
        name = f"pictures/{write(self.folder / 'pictures' / stem, draw(shown, columns=columns, side=side))}"
        self.written.add(name)
        return name
