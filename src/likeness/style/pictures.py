"""`likeness.stylize`: pictures in, a picture out; masks, colours, blends and the record beside the file."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import FingerprintMismatch, InvalidOption, StorageError, UnreadableFile
from ..nets.opening import open_net
from ..nets.perceptual import Vgg
from ..nets.tiles import values
from ..samples.files import atomic_write, overwritten, sha256_of
from ..samples.images import ImageSource, read_image, resized, resized_shape, write_image
from . import machine
from .colour import match_colours, with_colours_of
from .estimate import SMALLEST_WALK, Estimate
from .objective import Style, cost_options, plain
from .stand_in import can_stand_in
from .stylize import Stylized, estimate_sample, stylize_sample

COLOURS = ("no", "luminance", "histogram")
SLIM = "vgg-slim"  # of the catalogue: the default encoder, and what stands in for a larger one


@dataclass(frozen=True)
class StylizedPicture:
    """`image` (h, w, 3) uint8 RGB, and how it came about. sources: the files that it was made from -> their SHA-256."""

    image: np.ndarray
    run: Stylized
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def trace(self) -> tuple[float, ...]:
        """J after each evaluation at the finest scale."""
        return self.run.J

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture, and beside it (NAME.json) the settings and the trace of J: what `restylize` takes. Raises
        StorageError where it cannot be written, or would replace what it was made from."""
        write_recorded(path, self.image, self.run.to_dict() | {"sources": self.sources}, self.sources)


@dataclass(frozen=True, eq=False)
class _Task:
    """What the options of `stylize` come to: the arguments of `stylize_sample`, and the settings as they were given."""

    net: Vgg
    picture: Tensor
    styles: list[Style]
    start: str | Tensor
    settings: dict[str, Any]
    sources: dict[str, str]


def stylize(
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    *,
    encoder: str | os.PathLike[str] = SLIM,
    size: int = 512,
    blend: Sequence[float] = (),
    masks: Sequence[Sequence[ImageSource]] = (),
    keep_color: str = "no",
    init: str | os.PathLike[str] = "content",
    fingerprint: str | None = None,
    warm_up: bool = True,
    **run: Any,
) -> StylizedPicture:
    """Paint `content` like `style` (one picture or several).

    content, style: paths, bytes, arrays or PIL images.
    encoder: a perceptual net of the catalogue (`likeness weights list`), or the file of one (`nets.opening`).
    size: the longer side of the result in pixels; styles are taken at the same longer side.
    blend: weight of each style (default: all alike).
    masks: for each style a pair (where in the content, what of the style), or the first alone, where all of the style
        counts; white counts, black does not.
    keep_color: "no"; "luminance": the content's colours, the result's light and dark; "histogram": the styles are
        recoloured to the content's mean and covariance first.
    init: "content", "noise" or a picture to start from.
    fingerprint: of the encoder that is meant; another one is refused.
    warm_up: begin with `vgg-slim` standing in for the encoder where that pays and fits (`style.stand_in`).
    run: options of `stylize_sample` (steps, optimizer, seed, tile, on_progress, ...) and of `objective` (style_weight,
        style_layers, ...). A `checkpoint` stays at the end: delete it once the picture is saved.

    The result's `run.settings` are arguments of this function that make the same picture again, byte for byte on the
    same machine, where the pictures were given as files.

    Raises UnreadableFile for what is no picture, WeightsError for a damaged encoder, FingerprintMismatch, InvalidOption
    and UnknownName for options that cannot be.
    """
    limit = run.get("memory_limit")
    task = _task(content, style, encoder, size, blend, masks, keep_color, init, fingerprint, limit)
    first = _warm_up(task, run) if warm_up else None
    stylized = stylize_sample(task.net, task.picture, task.styles, init=task.start, warm_up=first, **run)
    sample = torch.from_numpy(stylized.sample)[None]
    if keep_color == "luminance":
        sample = with_colours_of(values(task.picture), sample)
    run_as_given = replace(stylized, settings=stylized.settings | task.settings)
    return StylizedPicture(to_image(sample), run_as_given, task.sources)


def _warm_up(task: _Task, run: dict[str, Any]) -> Vgg | None:
    """The slim net that can stand in for the task's encoder under the options `run`, if it pays."""
    if task.settings["encoder"] == SLIM:
        return None
    cost = cost_options(**{name: run[name] for name in cost_options().keys() & run.keys()})
    if cost["statistic"] != "gram":
        return None
    slim = open_encoder(SLIM)
    return slim if can_stand_in(slim, task.net, [*cost["content_layers"], *cost["style_layers"]]) else None


def estimate_stylize(
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    **options: Any,
) -> Estimate:
    """What `stylize` with the same arguments would choose and need. Raises as it does."""
    began = time.monotonic()
    bound = signature(stylize).bind(content, style, **options)
    bound.apply_defaults()
    run = bound.arguments.pop("run")
    warm_up = bound.arguments.pop("warm_up")
    task = _task(**bound.arguments, memory_limit=run.get("memory_limit"))
    first = _warm_up(task, run) if warm_up else None
    read = time.monotonic() - began
    found = estimate_sample(task.net, task.picture, task.styles, init=task.start, warm_up=first, **run)
    assert found.seconds is not None
    return replace(found, seconds=read + found.seconds)


def restylize(record: str | os.PathLike[str], **changes: Any) -> StylizedPicture:
    """Make a picture again from the record beside it (OUT.json), with `changes` of its settings if there are any. With
    another size or encoder, other layers or pictures, what the run chose for itself (tile, scales, ...) is chosen anew.

    Raises UnreadableFile where the file is no such record, InvalidOption where it was made from pictures that were no
    files, and as `stylize` does.
    """
    try:
        stored = json.loads(Path(record).read_bytes())
        settings, made_from = stored["settings"], stored.get("sources", {})
        stale = {"fingerprint"} if "encoder" in changes else set()
        if {"content", "style", "size", "encoder", "content_layers", "style_layers"} & changes.keys():
            stale |= {"tile", "scales", "history", "compact", "warm_up"}
        unchanged = _pictures({name: value for name, value in settings.items() if name not in changes})
        settings = {name: value for name, value in settings.items() if name not in stale} | changes
        pictures, sources = _pictures(settings), [settings.pop("content"), settings.pop("style")]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnreadableFile(f"{os.fspath(record)} is not the record of a stylised picture: {error}") from error
    if "strength" in settings:
        raise InvalidOption(f"{os.fspath(record)} is that of a picture made in one pass: `stylize_fast` makes such")
    if any(one is None for one in pictures):
        raise InvalidOption(
            f"{os.fspath(record)}: not all of its pictures were files; name them by content=, style= and masks="
        )
    for one in unchanged:
        if one in made_from and os.path.isfile(one) and sha256_of(one) != made_from[one]:
            raise InvalidOption(f"{one} is not the file that {os.fspath(record)} tells of: it changed since")
    return stylize(*sources, **settings)


def _pictures(settings: dict[str, Any]) -> list[Any]:
    """The content, the styles, the masks and the start that settings name, as far as they do."""
    found = [settings[name] for name in ("content",) if name in settings]
    found += several(settings["style"]) if "style" in settings else []
    found += [one for pair in settings.get("masks", ()) for one in pair]
    return found + [init for init in (settings.get("init", "noise"),) if init not in ("content", "noise")]


def write_recorded(
    path: str | os.PathLike[str], image: np.ndarray, record: dict[str, Any], sources: Iterable[str]
) -> None:
    """Write a picture, and beside it what it was made from. Raises StorageError where one of them cannot be written, or
    is one of `sources`; the record of an older picture does not outlive it."""
    if (taken := overwritten([path, record_of(path)], sources)) is not None:
        raise StorageError(f"cannot write {os.fspath(path)}: the picture was made from {os.fspath(taken)}")
    text = json.dumps(record, indent=1).encode()
    write_image(path, image)
    try:
        atomic_write(record_of(path), text)
    except StorageError as error:
        with suppress(OSError):
            record_of(path).unlink()
        raise StorageError(f"{os.fspath(path)} is written, but not its record: {error}") from error


def record_of(path: str | os.PathLike[str]) -> Path:
    """The record beside a picture."""
    return Path(os.path.splitext(path)[0] + ".json")


def check_colours(keep_color: str) -> None:
    if keep_color not in COLOURS:
        raise InvalidOption(f"keep_color is {keep_color!r}; it must be one of {', '.join(COLOURS)}")


def _task(
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    encoder: str | os.PathLike[str],
    size: int,
    blend: Sequence[float],
    masks: Sequence[Sequence[ImageSource]],
    keep_color: str,
    init: str | os.PathLike[str],
    fingerprint: str | None,
    memory_limit: int | None,
) -> _Task:
    check_colours(keep_color)
    sources = several(style)
    for name, given in (("blend", blend), ("masks", masks)):
        if len(given) not in (0, len(sources)):
            raise InvalidOption(f"{name} has {len(given)} entries for {len(sources)} styles; each style has one")
    if any(not isinstance(pair, (list, tuple)) or len(pair) not in (1, 2) for pair in masks):
        raise InvalidOption(
            "each entry of masks must be a pair, (where in the content, what of the style), or (where,)"
        )
    opened = open_net(encoder)
    if fingerprint not in (None, opened.fingerprint):
        raise FingerprintMismatch(
            f"the encoder {os.fspath(encoder)} has the fingerprint {opened.fingerprint}, but {fingerprint} is asked for"
        )
    images = [read_image(one) for one in [content, *sources]]
    _check_memory([resized_shape(image.shape[:2], size) for image in images], size, memory_limit)
    picture, *samples = (to_bytes(image, size) for image in images)
    del images
    styles = [Style(sample) for sample in samples]
    if keep_color == "histogram":
        styles = [replace(one, sample=match_colours(values(one.sample), values(picture)).clamp(0, 1)) for one in styles]
    if len(blend):
        styles = [replace(one, weight=float(weight)) for one, weight in zip(styles, blend, strict=True)]
    if len(masks):
        styles = [_masked(one, picture, *pair) for one, pair in zip(styles, masks, strict=True)]
    start: str | Tensor = str(init)
    if start not in ("content", "noise"):
        if not os.path.lexists(init):
            near = get_close_matches(str(init), ("content", "noise"), 1, 0.5)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidOption(
                f"init is {start!r}; it must be 'content', 'noise' or a picture, and no file is called so{meant}"
            )
        start = to_bytes(read_image(init), exact=tuple(picture.shape[2:]))
    settings = {
        "content": named(content),
        "style": [named(one) for one in sources],
        "encoder": named(encoder) if os.path.isfile(encoder) else os.fspath(encoder),
        "fingerprint": opened.fingerprint,
        "size": size,
        "blend": list(blend),
        "masks": [[named(one) for one in pair] for pair in masks],
        "keep_color": keep_color,
        "init": str(init) if isinstance(start, str) else named(init),
    }
    files = [one for one in _pictures(settings) if one is not None]
    return _Task(opened.net, picture, styles, start, plain(settings), {one: sha256_of(one) for one in files})


def several(style: ImageSource | Sequence[ImageSource]) -> list[Any]:
    """One style or many as a list."""
    return list(style) if isinstance(style, (list, tuple)) else [style]


def open_encoder(encoder: str | os.PathLike[str]) -> Vgg:
    """A perceptual net by its name in the catalogue or its file, see `nets.opening.open_net`."""
    return open_net(encoder).net


def to_sample(image: np.ndarray, size: int | None = None, *, exact: tuple[int, ...] | None = None) -> Tensor:
    """(h, w, 3) uint8 -> (1, 3, h', w') float32, 0...1; with `size`, the longer side gets so many pixels, with
    `exact` the picture gets this height and width."""
    return values(to_bytes(image, size, exact=exact))


def to_bytes(image: np.ndarray, size: int | None = None, *, exact: tuple[int, ...] | None = None) -> Tensor:
    """As `to_sample`, but uint8: a quarter of the memory."""
    image = resized(image, size)
    if exact is not None:
        image = np.asarray(Image.fromarray(image).resize((exact[1], exact[0]), Image.Resampling.LANCZOS))
    return torch.from_numpy(image.transpose(2, 0, 1)[None].copy())


def to_image(sample: Tensor) -> np.ndarray:
    """(1, 3, h, w), 0...1 -> (h, w, 3) uint8, rounded."""
    image = np.empty((*sample.shape[2:], 3), np.uint8)
    for number, channel in enumerate(sample[0]):  # one after the other: large pictures fill the memory
        image[:, :, number] = (channel.clamp(0, 1) * 255).round_().byte().numpy()
    return image


def _masked(style: Style, picture: Tensor, region: ImageSource, mask: ImageSource | None = None) -> Style:
    """A style that is painted where `region` of the picture is white, and taken from where its own `mask` is."""
    where = _mask(region, picture, "content")
    return replace(style, region=where, mask=None if mask is None else _mask(mask, style.sample, "style"))


def _mask(source: ImageSource, picture: Tensor, what: str) -> Tensor:
    """A mask picture at the size of `picture`, 0...1. Raises InvalidOption where it has another shape."""
    image = read_image(source)
    height, width = picture.shape[2:]
    name = named(source)
    check_shape(image.shape[:2], (height, width), f"the mask {os.path.basename(name)}" if name else "a mask", what)
    return to_sample(image, exact=(height, width))[0].mean(0)


def check_shape(size: Sequence[int], wanted: Sequence[int], what: str, whose: str) -> None:
    """Raises InvalidOption unless height and width have the same proportion, within 2 %."""
    if abs(size[1] / size[0] / (wanted[1] / wanted[0]) - 1) > 0.02:
        raise InvalidOption(
            f"{what} of {size[1]} x {size[0]} pixels does not have the shape of its {whose}, {wanted[1]} x {wanted[0]}"
        )


def named(source: ImageSource) -> str | None:
    """Where a file is, from whatever folder it is asked for."""
    return os.path.abspath(source) if isinstance(source, (str, os.PathLike)) else None


def _check_memory(shapes: Sequence[tuple[int, int]], size: int, limit: int | None) -> None:
    """Raises InvalidOption where not even the pictures and the least that any walk keeps of the first one's size fit,
    before they are made so large."""
    left = machine.available() if limit is None else limit
    needed = 3 * (sum(map(math.prod, shapes)) + max(map(math.prod, shapes)))  # bytes, and one while it is turned round
    needed += round(3 * SMALLEST_WALK * math.prod(shapes[0]))
    if left is not None and needed > left:
        raise InvalidOption(
            f"size is {size}: that would take more than {needed / 1e9:.1f} GB of memory, and {left / 1e9:.1f} GB "
            f"can be had; choose a size below {int(size * math.sqrt(left / needed))}"
        )
