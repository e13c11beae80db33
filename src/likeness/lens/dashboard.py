"""A report of what a net sees: a folder of pages that opens without a server or the network. For each layer the patches
that excite its most selective units (Zeiler & Fergus 2014, fig. 2); for each of these a page of its own; and pairs of
samples with what brings their codes together or apart."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidOption, StorageError, WeightsError
from ..nets import identity
from ..progress import Progress
from ..samples.files import atomic_write
from ..samples.folders import list_images, read_subjects
from . import pages, panels
from .exhibits import Exhibits, Look, of_pictures, of_samples
from .layers import in_order, telling_layers
from .models import Model, open_model
from .pages import by
from .pair_pages import write_pairs
from .patches import TopPatches, top_patches
from .unit_pages import write_units

SELECTIVE = 9  # units of a layer that are shown
RECORD = "patches.json"
FOLDERS = ("units", "pairs", "pictures")


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
            "patches": str(self.page.parent / RECORD),
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
    patches_only: bool = False,
    on_progress: Progress | None = None,
) -> Report:
    """Write FOLDER/index.html and what it leads to, and the hits of all units as FOLDER/patches.json. Pages that an
    earlier report left in the folder and this one does not have are removed.

    net: a module in eval mode; or a net for pictures: its name in the catalogue, a safetensors file of ours, a `Model`.
    samples: of a module: a tensor (n, c, *spatial) in 1, 2 or 3 dimensions, or a list or data set that gives (c,
        *spatial), or a tuple that begins with one, for a number. Of a net for pictures: files and folders.
    layers: names as in `nets.activations`; default: five, spread over the depth (`lens.layers.telling_layers`).
    units: numbers, or "selective": of each layer the nine that stand out most (`LayerPatches.selective`).
    k: patches per unit, a square number.
    names: of the samples; of files their names. subjects: who or what each sample is of: of a net that gives codes (b,
        d), pairs of one subject and of two are compared. For an encoder of faces they are read from folders
        (FOLDER/NAME/*.jpg).
    patches_only: leave away made samples and pairs, for which more is needed than one pass over the samples.

    A run that was interrupted goes on where it was when it is started again with the same net and samples.
    Raises UnknownName for a layer there is none of, InvalidOption for units there are none of or where no sample can be
    used, StorageError.
    """
    if k < 1 or (side := round(k**0.5)) ** 2 != k:
        raise InvalidOption(f"k is {k}; the page shows squares of patches: 1, 4, 9, 16")
    if isinstance(units, str) and units != "selective" or not len(units):
        raise InvalidOption(f"units is {units!r}; it must be numbers, at least one, or 'selective'")
    name, module, exhibits = _opened(net, samples, names, subjects, Path(folder))
    with contextlib.closing(exhibits.batches()) as batches:
        first = next(batches, None)
    if first is None:
        raise InvalidOption(f"none of the {exhibits.total} {exhibits.kind} can be used")
    x = first[:1]
    shapes = in_order(module, x, telling_layers(module, x) if layers is None else layers)
    folder = _folder(Path(folder))
    earlier, checkpoint = _pages_of(folder), folder / ".patches"
    look_at = functools.partial(
        top_patches,
        module,
        layers=list(shapes),
        units=None if isinstance(units, str) else dict.fromkeys(shapes, tuple(dict.fromkeys(map(int, units)))),
        k=k,
        total=exhibits.total,
        checkpoint=checkpoint,
        on_progress=on_progress,
    )
    try:
        found = look_at(exhibits.batches())
    except WeightsError:  # the checkpoint is of another run
        checkpoint.unlink(missing_ok=True)
        found = look_at(exhibits.batches())
    shown = {
        layer: one.selective(SELECTIVE) if isinstance(units, str) else one.units for layer, one in found.layers.items()
    }
    look = Look(folder, module, exhibits, found, shapes, shown)
    cards = write_units(look, side, maximised=not patches_only, on_progress=on_progress)
    index = _index(look, name, x, cards, [] if patches_only else write_pairs(look))
    for file in earlier - look.written:
        (folder / file).unlink(missing_ok=True)
    for inner in FOLDERS:
        with contextlib.suppress(OSError):  # it is not empty
            (folder / inner).rmdir()
    atomic_write(folder / "style.css", pages.STYLE.encode())
    record = found.to_dict() | {"model": name, "files": [exhibits.name(i) for i in range(found.samples)]}
    atomic_write(folder / RECORD, json.dumps(record | {"pages": sorted(look.written)}).encode())
    look.write("index.html", index)
    checkpoint.unlink(missing_ok=True)
    return Report(folder / "index.html", found, shown, tuple(exhibits.skipped), tuple(exhibits.unreadable))


def _folder(folder: Path) -> Path:
    """The report's folder, made where there is none; another's page in it is not replaced."""
    page = folder / "index.html"
    if page.exists() and not (folder / RECORD).exists():
        raise InvalidOption(f"{page} is no report's page and would be replaced: choose another folder")
    try:
        for inner in FOLDERS:
            (folder / inner).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be a report's folder: {error.strerror or error}") from error
    return folder


def _pages_of(folder: Path) -> set[str]:
    """The files that an earlier report wrote there, relative to the folder; no others, whatever its record says."""
    try:
        written = json.loads((folder / RECORD).read_bytes())["pages"]
        return {name for name in written if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w.-]+\.(html|webp|svg)", name)}
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or none that can be read
        return set()


def _index(look: Look, name: str, x: Tensor, cards: dict[str, list[pages.Card]], pairs: Sequence[pages.Card]) -> str:
    exhibits, found = look.exhibits, look.found
    spatial, shapes = x.shape[2:], look.shapes
    windows = {
        layer: one.field.span([n // 2 for n in shapes[layer][2:]], spatial) for layer, one in found.layers.items()
    }
    colours = dict(zip(windows, itertools.cycle(panels.LAYERS), strict=False))
    # One sample for all layers, so that one sees the field grow: of those that excite a unit of the deepest layer most
    # the one in the middle, as what excites most of all is often an odd one.
    hits = [hit for unit_hits in found.layers[list(windows)[-1]].hits for hit in unit_hits[:1]]
    sample = exhibits.shown(sorted(hits, key=lambda hit: hit.activation)[len(hits) // 2].sample)
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
    folder: Path,
) -> tuple[str, nn.Module, Exhibits]:
    """The net's name, the net, and the samples; drawings of an earlier report in `folder` are none."""
    if isinstance(net, nn.Module):
        return type(net).__name__, net, of_samples(samples, names, subjects)
    model = net if isinstance(net, Model) else open_model(net)
    places = [samples] if isinstance(samples, (str, os.PathLike)) else samples
    drawn = {file.resolve() for file in folder.glob("pictures/*.webp")}
    files = [file for file in list_images(places) if file.resolve() not in drawn]
    if not files:
        besides = f" besides those of the report in {folder}" if drawn else ""
        raise InvalidOption(f"there is no picture in {', '.join(map(str, places))}{besides}")
    if names is not None or subjects is not None:
        raise InvalidOption("pictures are called by their files, subjects by folders; leave names and subjects away")
    subject_of = (
        {one.path: one.subject for place in places if Path(place).is_dir() for one in read_subjects(place)}
        if isinstance(model.net, identity.Tower)
        else {}
    )
    name = Path(model.name).name.removesuffix(".safetensors")
    return name, model.net, of_pictures(model, files, [subject_of.get(file) for file in files])
