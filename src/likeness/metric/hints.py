"""Hints: the student's inner maps follow the teacher's (FitNets, Romero 2015, eq. 3), so that every layer is told what
to learn and not only the last one. It makes a step cost a few per cent more and a run need several times fewer.

The teacher's maps are those of the clean crop, computed once; the student sees an augmented view, so each map is
moved as its view was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, UnknownName
from ..nets.activations import listening
from ..nets.identity import Tower
from ..progress import Progress
from .augment import move, to_input
from .data import content_key


class Hints(nn.Module):
    """A linear map (1x1 convolution) per hint, from the student's map of the same size to the teacher's.

    maps: the teacher's maps of all training crops, each (n, channels, h, w) float16, as `teacher_maps` gives them.
    A map of h positions per axis hints to the last stage of `tower` that has h of them at full resolution.
    Raises InvalidOption where no stage has such a map.
    """

    def __init__(self, tower: Tower, maps: Sequence[np.ndarray]) -> None:
        super().__init__()
        self.maps, self.stages = maps, [_stage(tower, one.shape[-1]) for one in maps]
        widths = tower.architecture.widths
        self.heads = nn.ModuleList(
            nn.Conv2d(widths[stage], one.shape[1], 1) for stage, one in zip(self.stages, maps, strict=True)
        )
        for number, one in enumerate(maps):  # a spread sample tells mean and deviation of each channel well enough
            sample = torch.from_numpy(np.asarray(one[:: max(1, len(one) // 500)], dtype=np.float32))
            self.register_buffer(f"mean{number}", sample.mean((0, 2, 3)).view(1, -1, 1, 1))
            self.register_buffer(f"deviation{number}", sample.std((0, 2, 3)).clamp_min(1e-6).view(1, -1, 1, 1))
        self._seen: dict[str, Tensor] = {}

    @contextmanager
    def listening(self, tower: Tower) -> Iterator[None]:
        """Within it, every forward pass of `tower` leaves the maps of its stages here for `forward`."""
        with listening(tower, sorted({f"stages.{stage}" for stage in self.stages})) as self._seen:
            yield
        self._seen = {}

    def forward(self, index: Tensor, moves: Tensor) -> Tensor:
        """Mean squared error per hint (number of hints,), of the teacher's standardised maps of the samples `index`
        (b,), moved by `moves` (b, 2, 3) like their views. 1 is what a student gets that knows the means only."""
        errors = []
        for number, (stage, head, maps) in enumerate(zip(self.stages, self.heads, self.maps, strict=True)):
            seen = self._seen[f"stages.{stage}"].float()
            wanted = self._standard(number, maps, index.numpy())
            wanted = move(wanted, moves)
            if seen.shape[2:] != wanted.shape[2:]:  # training starts at a low resolution
                wanted = F.adaptive_avg_pool2d(wanted, seen.shape[2:])  # type: ignore[arg-type]
            errors.append((head(seen) - wanted).square().mean())
        return torch.stack(errors)

    @torch.no_grad()
    def solve(self, tower: Tower, images: np.ndarray, index: np.ndarray, *, batch: int = 64) -> None:
        """Start the heads at the least-squares maps from what `tower` (in evaluation) makes of the crops `index` of
        `images` (n, size, size, 3) uint8 to the teacher's maps of them: heads drawn at random would first pull a
        trained net out of shape."""
        sums: list[tuple[Tensor, Tensor]] = []
        training = tower.training
        tower.eval()
        with self.listening(tower):
            for first in range(0, len(index), batch):
                part = index[first : first + batch]
                tower(to_input(torch.from_numpy(images[part])).to(self.get_buffer("mean0").device))
                for number, (stage, maps) in enumerate(zip(self.stages, self.maps, strict=True)):
                    x = F.pad(_rows(self._seen[f"stages.{stage}"]), (0, 1), value=1)  # [b * positions, channels + 1]
                    y = _rows(self._standard(number, maps, part))
                    if first == 0:
                        sums.append((x.T @ x, x.T @ y))
                    else:
                        sums[number] = (sums[number][0] + x.T @ x, sums[number][1] + x.T @ y)
        tower.train(training)
        for head, (xx, xy) in zip(self.heads, sums, strict=True):
            ridge = 1e-6 * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
            solution = torch.linalg.solve(xx + ridge, xy)
            head.weight.copy_(solution[:-1].T.reshape(head.weight.shape))  # type: ignore[operator]
            head.bias.copy_(solution[-1])  # type: ignore[operator]

    def _standard(self, number: int, maps: np.ndarray, index: np.ndarray) -> Tensor:
        """The teacher's maps (b, c, h, w) of the crops `index`, each channel with mean 0 and deviation 1."""
        mean = self.get_buffer(f"mean{number}")
        wanted = torch.from_numpy(np.asarray(maps[index], dtype=np.float32)).to(mean.device)
        return (wanted - mean) / self.get_buffer(f"deviation{number}")


def _rows(maps: Tensor) -> Tensor:
    """(b, c, *spatial) -> (b * positions, c) float64."""
    return maps.movedim(1, -1).flatten(0, -2).double()


def _stage(tower: Tower, positions: int) -> int:
    sizes = tower.architecture.map_sizes
    if positions not in sizes:
        raise InvalidOption(f"a hint of {positions} positions per axis has no match: the net's stages have {sizes}")
    return len(sizes) - 1 - sizes[::-1].index(positions)


def teacher_maps(
    images: np.ndarray,
    teacher: Path,
    names: Sequence[str],
    *,
    cache: Path,
    batch: int = 64,
    on_progress: Progress | None = None,
) -> list[np.ndarray]:
    """The values called `names` inside the ONNX file `teacher`, maps (n, c, h, w) float16, for `images`
    (n, h, w, 3) uint8 RGB. They are kept in files of the folder `cache` and mapped into memory: some kB per crop.

    Raises UnknownName where the teacher has no value of such a name, InvalidOption where it is not a map.
    """
    key = content_key(images, teacher)
    files = [cache / f"maps-{key}-{quote(name, safe='')}.npy" for name in names]
    if all(file.exists() for file in files):
        return [np.load(file, mmap_mode="r") for file in files]
    session = _session(teacher, names)
    into = session.get_inputs()[0].name
    cache.mkdir(parents=True, exist_ok=True)
    parts: list[np.ndarray] = []
    for done in range(0, len(images), batch):
        x = (np.asarray(images[done : done + batch]).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        found = session.run(list(names), {into: np.ascontiguousarray(x)})
        if not parts:
            for name, value, file in zip(names, found, files, strict=True):
                _check_map(value, name, teacher)
                shape = (len(images), *value.shape[1:])
                parts.append(np.lib.format.open_memmap(file.with_suffix(".part"), "w+", np.float16, shape))
        for part, value in zip(parts, found, strict=True):
            part[done : done + len(x)] = value
        if on_progress:
            on_progress(done + len(x), len(images), {"stage": "teacher's maps"})
    for part, file in zip(parts, files, strict=True):
        part.flush()  # type: ignore[attr-defined]
        os.replace(file.with_suffix(".part"), file)
    return [np.load(file, mmap_mode="r") for file in files]


def check_hints(teacher: Path, names: Sequence[str], tower: Tower, *, size: int) -> None:
    """Raises UnknownName or InvalidOption where `teacher_maps` or `Hints` would, but at once: from one black crop of
    `size` pixels."""
    session = _session(teacher, names)
    found = session.run(list(names), {session.get_inputs()[0].name: np.zeros((1, 3, size, size), np.float32)})
    for name, value in zip(names, found, strict=True):
        _check_map(value, name, teacher)
        _stage(tower, value.shape[-1])


def _check_map(value: np.ndarray, name: str, teacher: Path) -> None:
    if value.ndim != 4:
        raise InvalidOption(f"{name!r} in {teacher} has shape {value.shape}; a hint is a map (b, c, h, w)")


def _session(teacher: Path, names: Sequence[str]) -> Any:
    """An ONNX Runtime session of `teacher` that can also give the values `names` inside it."""
    import onnx
    import onnxruntime

    model = onnx.load(str(teacher))
    known = {value for node in model.graph.node for value in node.output}
    given = {value.name for value in model.graph.output}
    for name in names:
        if name not in known:
            raise UnknownName(f"{teacher} has no value called {name!r} (open it in a viewer of ONNX graphs)")
        if name not in given:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
