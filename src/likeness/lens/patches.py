"""What excites a unit most: for every unit of chosen layers, the k patches of a data set with the highest activation
(Zeiler & Fergus 2014, fig. 2), in one pass over the data and in memory that does not grow with it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from ..nets import digest, weights_file
from ..nets.activations import activations
from ..nets.receptive_field import ReceptiveField, receptive_fields
from ..progress import Progress
from .histograms import Counts, Histogram, counted

KIND = "likeness.top-patches"
ROWS = ("units", "value", "sample", "place", "sums")  # tensors of `_Running` that a checkpoint holds


@dataclass(frozen=True)
class Hit:
    """One patch: which sample (its number in the data set), the unit's position in its map, the activation there, and
    `window`, per axis the (first, last + 1) positions of the sample that the unit sees, clipped at its borders."""

    sample: int
    position: tuple[int, ...]
    activation: float
    window: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "sample": self.sample,
            "position": list(self.position),
            "activation": self.activation,
            "window": [list(axis) for axis in self.window],
        }


@dataclass(frozen=True)
class LayerPatches:
    """The hits of one layer.

    units: which of its channels were watched. hits: for each of them up to k patches, the most exciting first; those of
    equal activation in the order of the data. mean, deviation, histograms: of each unit's activations at the counted
    positions, an even grid where the map is large (`lens.histograms`). field: the receptive field of the layer's units.
    """

    units: tuple[int, ...]
    hits: tuple[tuple[Hit, ...], ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    histograms: tuple[Histogram, ...]
    field: ReceptiveField

    def selective(self, count: int) -> tuple[int, ...]:
        """The `count` units whose patches stand out most: mean activation of the hits, in deviations above the unit's
        mean, both of the counted positions. After them come those that were the same at all of these but fire at
        others, last those that never fire."""

        def stands_out(i: int) -> float:
            top = sum(hit.activation for hit in self.hits[i]) / max(1, len(self.hits[i]))
            return (top - self.mean[i]) / self.deviation[i] if self.deviation[i] > 0 else -float("inf")

        order = sorted(range(len(self.units)), key=lambda i: (not self.fires(i), -stands_out(i), i))
        return tuple(self.units[i] for i in order[:count])

    def fires(self, i: int) -> bool:
        """Whether the i-th of `units` is above 0 anywhere in the data."""
        return bool(self.hits[i]) and self.hits[i][0].activation > 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "units": {
                str(unit): {
                    "hits": [hit.to_dict() for hit in hits],
                    "mean": self.mean[i],
                    "deviation": self.deviation[i],
                    "histogram": self.histograms[i].to_dict(),
                }
                for i, (unit, hits) in enumerate(zip(self.units, self.hits, strict=True))
            },
            "field": self.field.to_dict(),
        }


@dataclass(frozen=True)
class TopPatches:
    """layer -> its hits, over `samples` samples."""

    layers: Mapping[str, LayerPatches]
    samples: int

    def to_dict(self) -> dict[str, Any]:
        return {"samples": self.samples, "layers": {name: one.to_dict() for name, one in self.layers.items()}}


@torch.no_grad()
def top_patches(
    net: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str],
    units: Mapping[str, Sequence[int]] | None = None,
    k: int = 9,
    per_sample: int = 1,
    total: int | None = None,
    checkpoint: Path | None = None,
    every: float = 30.0,
    on_progress: Progress | None = None,
) -> TopPatches:
    """The k patches that excite each unit most.

    net: any module; it is used as it is (call `net.eval()` first) and left as it was.
    batches: of samples (b, c, *spatial) of one spatial size, in 1, 2 or 3 dimensions: a `DataLoader`, or any iterable;
        of tuples and lists the first item counts. To go on from a checkpoint it must give the same batches again.
    layers: names as in `nets.activations`; a layer's maps must have spatial axes.
    units: layer -> channels to watch; all of them where a layer is not named.
    per_sample: at most so many patches of one sample for each unit.
    total: number of samples, for progress, where `batches` has no `dataset` that tells.
    checkpoint: a file to which the state is written every `every` seconds and at the end; a run found there goes on and
        gives what an uninterrupted one gives. It is not deleted: do so when what was found is safe.

    Raises UnknownName for a layer or channel there is none of, InvalidOption where a layer has no positions, samples
    differ in size or there are none, WeightsError where the checkpoint is damaged or of another net, other options or
    other samples.
    """
    if not all(isinstance(count, int) and count >= 1 for count in (k, per_sample)):
        raise InvalidOption(f"k is {k!r} and per_sample {per_sample!r}; both must be whole numbers, at least 1")
    if total is None:
        total = len(getattr(batches, "dataset", ())) or 0
    asked = {"layers": list(layers), "k": k, "per_sample": per_sample}
    asked["units"] = {name: list(one) for name, one in (units or {}).items()}
    if checkpoint is not None:
        asked["net"] = digest.of_net(net)
    state, before, theirs = _stored(checkpoint, asked)
    fields: dict[str, ReceptiveField] = {}
    spatial: tuple[int, ...] = ()
    done, seen = 0, ""  # samples, and a running hash of them
    same = not before
    due = time.monotonic() + every
    for x in map(_samples, batches):
        if not fields:
            spatial = tuple(x.shape[2:])
            fields = receptive_fields(net, x[:1], layers)
        if tuple(x.shape[2:]) != spatial:
            raise InvalidOption(
                f"a batch has samples of {tuple(x.shape[2:])}, others of {spatial}; bring them all to one size"
            )
        done += len(x)
        if checkpoint is not None:
            seen = digest.of_tensor(x, seen)
        if done - len(x) < before:  # the run that goes on has seen it
            same = (done, seen) == (before, theirs)
            continue
        if not same:
            break
        for layer, a in activations(net, x, layers).items():
            if layer not in state:
                state[layer] = _Running.of(a, layer, (units or {}).get(layer), k)
            state[layer].add(a, done - len(x), k=k, per_sample=per_sample)
        if checkpoint is not None and time.monotonic() >= due:
            _store(checkpoint, state, done, seen, asked)
            due = time.monotonic() + every
        if on_progress:
            on_progress(done, max(done, total), {})
    if not fields:
        raise InvalidOption("there are no samples to look at")
    if not same:
        raise WeightsError(f"{checkpoint} is of a run with other samples; delete it, or name another file")
    if checkpoint is not None and done > before:
        _store(checkpoint, state, done, seen, asked)
    return TopPatches({name: state[name].result(fields[name], spatial) for name in layers}, done)


@dataclass
class _Running:
    """The best so far of the units of one layer, each row sorted: value, sample and flat position (k, units); and the
    sums of a and a^2 (2, units) over `count` values; and the histograms."""

    units: Tensor
    shape: tuple[int, ...]
    value: Tensor
    sample: Tensor
    place: Tensor
    sums: Tensor
    histograms: Counts
    count: int = 0

    @classmethod
    def of(cls, a: Tensor, layer: str, units: Sequence[int] | None, k: int) -> _Running:
        if a.ndim < 3:
            raise InvalidOption(f"layer {layer!r} gives {tuple(a.shape)}: without positions there are no patches")
        chosen = range(a.shape[1]) if units is None else units
        if wrong := [unit for unit in chosen if not 0 <= unit < a.shape[1]]:
            raise InvalidOption(f"layer {layer!r} has units 0...{a.shape[1] - 1}, not {', '.join(map(str, wrong))}")
        index = torch.tensor(list(chosen))
        n = len(index)
        none = torch.full((k, n), -1)
        return cls(
            index,
            tuple(a.shape[2:]),
            torch.full((k, n), -torch.inf),
            none,
            none.clone(),
            torch.zeros(2, n).double(),
            Counts.of(n),
        )

    def add(self, a: Tensor, first: int, *, k: int, per_sample: int) -> None:
        """Take in the activations (b, c, *spatial) of samples number `first` and on."""
        if len(self.units) != a.shape[1] or not torch.equal(self.units, torch.arange(a.shape[1])):
            a = a[:, self.units]
        a = a.float().cpu()
        some = counted(a)  # [units, values]
        self.histograms.add(some)
        self.count += some.shape[1]
        self.sums[0] += some.double().sum(1)
        self.sums[1] += some.double().square().sum(1)
        largest = _largest(a) if per_sample == 1 else None
        a = a.flatten(2)  # [b, units, positions]
        b, n, positions = a.shape
        m = min(per_sample, positions)
        if largest is not None:  # it is cheap; where it lies is asked only of those that come among the best
            values, places = largest, None  # [b, units]
        else:
            ordered = a.sort(dim=2, descending=True, stable=True)
            values, places = (
                one[..., :m].transpose(1, 2).reshape(b * m, n) for one in (ordered.values, ordered.indices)
            )
        if not bool((values > self.value[-1]).any()):
            return
        both = torch.cat([self.value, values])
        order = both.sort(dim=0, descending=True, stable=True).indices[:k]  # of equal ones the earlier
        new = (order >= k).nonzero()
        row, unit = order[new[:, 0], new[:, 1]] - k, new[:, 1]
        found = [a[i, j].argmax() for i, j in zip(row, unit, strict=True)] if places is None else places[row, unit]
        old = order.clamp_max(k - 1)
        self.sample, self.place = self.sample.gather(0, old), self.place.gather(0, old)
        self.value = both.gather(0, order)
        self.sample[new[:, 0], unit] = first + row // m
        self.place[new[:, 0], unit] = torch.as_tensor(found)

    def result(self, field: ReceptiveField, spatial: tuple[int, ...]) -> LayerPatches:
        def hits(j: int) -> Iterator[Hit]:
            rows = zip(self.value[:, j].tolist(), self.sample[:, j].tolist(), self.place[:, j].tolist(), strict=True)
            for value, sample, place in rows:
                if sample >= 0:
                    position = tuple(int(i) for i in np.unravel_index(place, self.shape))
                    yield Hit(sample, position, value, field.span(position, spatial))

        mean = self.sums[0] / self.count
        deviation = (self.sums[1] / self.count - mean.square()).clamp_min(0).sqrt()
        return LayerPatches(
            tuple(self.units.tolist()),
            tuple(tuple(hits(j)) for j in range(len(self.units))),
            tuple(mean.tolist()),
            tuple(deviation.tolist()),
            tuple(map(self.histograms.result, range(len(self.units)))),
            field,
        )


def _largest(a: Tensor) -> Tensor:
    """The largest value of each map: (b, c, *spatial) -> (b, c). Row by row where the channels of a position lie side
    by side in memory, as torch is slow to reduce many positions of few channels."""
    if a.is_contiguous():
        return a.flatten(2).amax(2)
    rows = a.movedim(1, -1)
    return rows.reshape(*rows.shape[:2], -1).amax(1).reshape(len(a), -1, a.shape[1]).amax(1)


def _samples(batch: Any) -> Tensor:
    x = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(x, Tensor) or x.ndim < 3:
        what = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise InvalidOption(
            f"a batch is a tensor (b, c, *spatial), or a tuple that begins with one; this one is {what}"
        )
    return x


def _store(path: Path, state: Mapping[str, _Running], done: int, seen: str, asked: Mapping[str, Any]) -> None:
    tensors: dict[str, Tensor] = {}
    plain = {}
    for layer, one in state.items():
        tensors |= {f"{layer}/{name}": getattr(one, name) for name in ROWS}
        tensors |= {f"{layer}/{name}": tensor for name, tensor in vars(one.histograms).items()}
        plain[layer] = {"shape": list(one.shape), "count": one.count}
    record = {"done": done, "seen": seen, "asked": dict(asked), "layers": plain}
    weights_file.write(path, tensors, {KIND: json.dumps(record)})


def _stored(path: Path | None, asked: Mapping[str, Any]) -> tuple[dict[str, _Running], int, str]:
    """The state to go on with, how many samples it has seen, and their hash."""
    if path is None or not path.exists():
        return {}, 0, ""
    tensors, metadata = weights_file.read(path)
    if KIND not in metadata:
        raise WeightsError(f"{path} is not a checkpoint of top patches")
    with weights_file.damaged(path):
        stored = json.loads(metadata[KIND])
        state = {
            layer: _Running(
                shape=tuple(plain["shape"]),
                count=plain["count"],
                histograms=Counts(*(tensors[f"{layer}/{one.name}"] for one in dataclasses.fields(Counts))),
                **{name: tensors[f"{layer}/{name}"] for name in ROWS},
            )
            for layer, plain in stored["layers"].items()
        }
        theirs, done, seen = stored["asked"], int(stored["done"]), str(stored["seen"])
    if theirs != dict(asked):
        raise WeightsError(f"{path} is of a run with another net, layers, units or k; delete it, or name another file")
    return state, done, seen
