"""A report of what a net sees: a folder of pages that opens without a server or the network. For each layer the patches
that excite its most selective units (Zeiler & Fergus 2014, fig. 2); for each of these a page of its own; and pairs of
samples with what brings their codes together or apart."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, StorageError
from ..nets import identity
from ..nets.activations import layer_shapes
from ..progress import Progress
from ..samples.files import atomic_write
from ..samples.folders import list_images, read_subjects
from . import pages, panels
from .exhibits import Exhibits, Look, of_pictures, of_samples
from .layers import telling_layers
from .models import Model, open_model
from .pages import by
from .pair_pages import write_pairs
from .patches import TopPatches, top_patches
from .unit_pages import write_units

SELECTIVE = 9  # units of a layer that are shown


@dataclass(frozen=True)
class Report:
    """`page`: the first one. `patches`: what was found; sample numbers are those of `names`. `shown`: the units with a
    page. `skipped`: files that could not be used, `unreadable`: those of them that could not be read."""

    page: Path
    patches: TopPatches
    shown: dict[str, tuple[int, ...]]
    skipped: tuple[Path, ...]
    unreadable: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "page": str(self.page),
            "samples": self.patches.samples,
            "skipped": [str(path) for path in self.skipped],
            "shown": {layer: list(units) for layer, units in self.shown.items()},
            "patches": str(self.page.parent / "patches.json"),
        }


def report(
    net: nn.Module | Model | str | os.PathLike[str],
    samples: Any,
    folder: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    units: Sequence[int] | str = "selective",
    k: int = 9,
    names: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Write FOLDER/index.html and what it leads to, and the hits of all units as FOLDER/patches.json.

    net: a module in eval mode; or a net for pictures: its name in the catalogue, a safetensors file of ours, a `Model`.
    samples: of a module: a tensor (n, c, *spatial) in 1, 2 or 3 dimensions, or a list or data set that gives (c,
        *spatial), or a tuple that begins with one, for a number. Of a net for pictures: files and folders.
    layers: names as in `nets.activations`; default: five, spread over the depth (`lens.layers.telling_layers`).
    units: numbers, or "selective": of each layer the nine that stand out most (`LayerPatches.selective`).
    k: patches per unit, a square number.
    names: of the samples; of files their names. subjects: who or what each sample is of: of a net that gives codes (b,
        d), pairs of one subject and of two are compared. For an encoder of faces they are read from folders
        (FOLDER/NAME/*.jpg).

    A run that was interrupted goes on where it was when it is started again with the same net and samples.
    Raises UnknownName for a layer or unit there is none of, InvalidOption where no sample can be used, StorageError.
    """
    return _report(net, samples, folder, layers, units, k, names, subjects, on_progress, whole=True)


def report_patches(
    net: nn.Module | Model | str | os.PathLike[str],
    samples: Any,
    folder: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    units: Sequence[int] | str = "selective",
    k: int = 9,
    names: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """The part of `report` that needs one pass over the samples and no more: patches and histograms."""
    return _report(net, samples, folder, layers, units, k, names, None, on_progress, whole=False)


def _report(
    net: nn.Module | Model | str | os.PathLike[str],
    samples: Any,
    folder: str | os.PathLike[str],
    layers: Sequence[str] | None,
    units: Sequence[int] | str,
    k: int,
    names: Sequence[str] | None,
    subjects: Sequence[str] | None,
    on_progress: Progress | None,
    *,
    whole: bool,
) -> Report:
    side = round(k**0.5)
    if k < 1 or side * side != k:
        raise InvalidOption(f"k is {k}; the page shows squares of patches: 1, 4, 9, 16")
    if isinstance(units, str) and units != "selective":
        raise InvalidOption(f"units is {units!r}; it must be numbers or 'selective'")
    name, module, exhibits = _opened(net, samples, names, subjects)
    with contextlib.closing(exhibits.batches()) as batches:
        x = next(batches, None)
    if x is None:
        raise InvalidOption(f"none of the {exhibits.total} {exhibits.kind} can be used")
    asked = list(telling_layers(module, x[:1]) if layers is None else layers)
    folder = _folder(Path(folder))
    found = top_patches(
        module,
        exhibits.batches(),
        layers=asked,
        units=None if isinstance(units, str) else dict.fromkeys(asked, units),
        k=k,
        total=exhibits.total,
        checkpoint=folder / f".patches-{_digest(module, exhibits, x, asked, units, k)}",
        on_progress=on_progress,
    )
    shown = {
        layer: one.selective(SELECTIVE) if isinstance(units, str) else one.units for layer, one in found.layers.items()
    }
    look = Look(folder, module, exhibits, found, shown)
    cards = write_units(look, side, maximised=whole, on_progress=on_progress)
    pairs = write_pairs(look) if whole else []
    atomic_write(folder / "style.css", pages.STYLE.encode())
    record = found.to_dict() | {"model": name, "files": [exhibits.name(i) for i in range(found.samples)]}
    atomic_write(folder / "patches.json", json.dumps(record).encode())
    pages.write(folder / "index.html", _index(look, name, x[:1], cards, pairs))
    return Report(folder / "index.html", found, shown, tuple(exhibits.skipped), tuple(exhibits.unreadable))


def _folder(folder: Path) -> Path:
    """The report's folder, made where there is none; another's page in it is not replaced."""
    page = folder / "index.html"
    if page.exists() and not (folder / "patches.json").exists():
        raise InvalidOption(f"{page} is no report's page and would be replaced: choose another folder")
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be a report's folder: {error.strerror or error}") from error
    return folder


def _index(look: Look, name: str, x: Tensor, cards: dict[str, list[pages.Card]], pairs: Sequence[pages.Card]) -> str:
    exhibits, found = look.exhibits, look.found
    spatial, shapes = x.shape[2:], layer_shapes(look.net, x)
    windows = {
        layer: one.field.span([n // 2 for n in shapes[layer][2:]], spatial) for layer, one in found.layers.items()
    }
    colours = dict(zip(windows, itertools.cycle(panels.LAYERS), strict=False))
    # One sample for all layers, so that one sees the field grow: the one that excites the deepest layer most.
    hits = [hit for unit_hits in found.layers[list(windows)[-1]].hits for hit in unit_hits[:1]]
    sample = exhibits.shown(max(hits, key=lambda hit: hit.activation).sample)
    middle = [n // 2 for n in spatial]
    marks = [(window, colours[layer]) for layer, window in windows.items()]
    depth = look.draw("depth", [panels.Panel(sample, marks[::-1], middle)])
    views = [
        pages.LayerView(
            layer,
            f"layer-{number}",
            colours[layer],
            [
                ("units", f"{shapes[layer][1]}"),
                ("positions", by(shapes[layer][2:])),
                ("a unit sees", by(one.field.size)),
                ("stride", by(one.field.stride)),
            ],
            look.draw(f"field-{number}", [panels.Panel(sample, [(windows[layer], colours[layer])], middle)]),
            cards[layer],
        )
        for number, (layer, one) in enumerate(found.layers.items(), 1)
    ]
    lede = (
        f"For each unit the patches of {found.samples:,} {exhibits.kind} that excite it most, at most one of each, the "
        f"most exciting first; of each layer the units that stand out most. Choose a unit to see more of it."
    )
    facts = [
        ("parameters", f"{sum(one.numel() for one in look.net.parameters()):,}"),
        (exhibits.kind, f"{found.samples:,}"),
        ("size", by(x.shape[1:])),
    ]
    return pages.index(f"What {name} sees", lede, facts, depth, views, pairs)


def _opened(
    net: nn.Module | Model | str | os.PathLike[str],
    samples: Any,
    names: Sequence[str] | None,
    subjects: Sequence[str] | None,
) -> tuple[str, nn.Module, Exhibits]:
    """The net's name, the net, and the samples."""
    if isinstance(net, nn.Module):
        return type(net).__name__, net, of_samples(samples, names, subjects)
    model = net if isinstance(net, Model) else open_model(net)
    places = [samples] if isinstance(samples, (str, os.PathLike)) else samples
    files = list_images(places)
    if not files:
        raise InvalidOption(f"there is no picture in {', '.join(map(str, places))}")
    if names is not None or subjects is not None:
        raise InvalidOption("pictures are called by their files, subjects by folders; leave names and subjects away")
    subject_of = (
        {one.path: one.subject for place in places if Path(place).is_dir() for one in read_subjects(place)}
        if isinstance(model.net, identity.Tower)
        else {}
    )
    return Path(model.name).stem, model.net, of_pictures(model, files, [subject_of.get(file) for file in files])


def _digest(net: nn.Module, exhibits: Exhibits, x: Tensor, *asked: Any) -> str:
    """What tells this run from another one, for the name of its checkpoint."""
    one = hashlib.sha256(repr((exhibits.given, exhibits.total, asked)).encode())
    for tensor in [x, *net.state_dict().values()]:
        one.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return one.hexdigest()[:16]
