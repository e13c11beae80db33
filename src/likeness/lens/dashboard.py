"""A report of what a net sees: a folder of pages that opens without a server or the network. For each layer the patches
that excite its most selective units (Zeiler & Fergus 2014, fig. 2); for each of these a page of its own; and pairs of
samples with what brings their codes together or apart."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InvalidOption, SilentUnit
from ..nets import identity
from ..progress import Progress
from ..samples.files import atomic_write
from ..samples.folders import list_images, read_subjects
from . import pages, panels
from .attribute import unit as unit_target
from .exhibits import Exhibits, of_pictures, of_samples
from .layers import telling_layers
from .maximize import maximize
from .models import Model, open_model
from .patches import Hit, LayerPatches, TopPatches, top_patches

TILE, WIDE = 112, 224  # pixels of a patch on the index, and of a drawing on a unit's page
SELECTIVE = 9


@dataclass(frozen=True)
class Report:
    """`page`: the first one. `patches`: what was found; sample numbers are those of `names`. `shown`: the units with a
    page. `skipped`: files that could not be used."""

    page: Path
    patches: TopPatches
    shown: dict[str, tuple[int, ...]]
    names: tuple[str, ...]
    skipped: tuple[Path, ...]

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
    title, module, exhibits = _opened(net, samples, names, subjects)
    folder = Path(folder)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    x = _first(exhibits)
    layers = list(telling_layers(module, x) if layers is None else layers)
    chosen = None if isinstance(units, str) else dict.fromkeys(layers, units)
    found = top_patches(
        module,
        exhibits.batches(),
        layers=layers,
        units=chosen,
        k=k,
        total=exhibits.total,
        checkpoint=folder / f".patches-{_digest(module, exhibits)}",
        on_progress=on_progress,
    )
