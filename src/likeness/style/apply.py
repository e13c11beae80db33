"""`likeness apply`: paint pictures with a trained net, in one pass. A net that was exported to ONNX needs no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidOption, MissingDependency, WeightsError
from ..nets.engine import PER_POSITION, SMALLEST, Engine
from ..samples.files import reading_safetensors
from ..samples.images import ImageSource, read_image, resized, resized_shape

MEMORY = 2_000_000_000
# What an ONNX file says that it needs; of one that does not say, what nets as wide as any in use do.
ONNX_NEEDS = {PER_POSITION: 2100, SMALLEST: 17}


@dataclass(frozen=True)
class Net:
    """A net that paints: `paint` takes a sample (1, c, *spatial) float32, 0...1, and gives one of the same shape.

    memory: bytes that it needs at most for a sample of this spatial size. smallest: fewest positions per axis.
    """

    paint: Callable[[np.ndarray], np.ndarray]
    memory: Callable[[Sequence[int]], int]
    smallest: int


def open_net(path: str | os.PathLike[str]) -> Net:
    """The net in a file: `.onnx` (run by ONNX Runtime) or safetensors of one of KINDS, as the file itself says.

    Raises UnreadableFile, WeightsError where the file is not such a net or is damaged, MissingDependency for
    safetensors without torch.
    """
    if os.fspath(path).lower().endswith(".onnx"):
        return _open_onnx(path)
    from safetensors import safe_open

    with reading_safetensors(path), safe_open(os.fspath(path), "np") as file:
        metadata = file.metadata() or {}
    for kind, opener in KINDS.items():
        if kind in metadata:
            try:
                return opener(path)
            except ModuleNotFoundError as error:
                raise MissingDependency(
                    f"{path} needs {error.name}, which is not installed: pip install 'likeness[torch]', or use its "
                    "ONNX export (likeness weights export, where there is torch)"
                ) from error
    raise WeightsError(f"{path} is not a net that paints (`likeness train style` makes one); it has {_said(metadata)}")


def _open_onnx(path: str | os.PathLike[str]) -> Net:
    engine = Engine(Path(path))
    if engine.input_shape != (None, 3, None, None) or len(engine.output_names) != 1:
        raise WeightsError(f"{path} is not a net that paints: it must take and give pictures (any, 3, any, any)")
    try:
        each, smallest = (int(engine.metadata.get(name, usual)) for name, usual in ONNX_NEEDS.items())
    except ValueError as error:
        raise WeightsError(f"{path} is damaged, what it says that it needs is no number: {error}") from error
    return Net(lambda x: engine.run(x)[0], lambda spatial: each * math.prod(spatial), smallest)


def _open_transform(path: str | os.PathLike[str]) -> Net:
    import torch

    from . import transform

    net = transform.load(path)
    made = net.architecture

    def paint(x: np.ndarray) -> np.ndarray:
        return net.paint(torch.from_numpy(x)).numpy()

    return Net(paint, lambda spatial: transform.memory(made, spatial), made.smallest)


KINDS: dict[str, Callable[[str | os.PathLike[str]], Net]] = {"likeness.transform": _open_transform}


def apply(
    net: Net | str | os.PathLike[str], picture: ImageSource, *, size: int | None = None, max_memory: int = MEMORY
) -> np.ndarray:
    """`picture` as `net` paints it: (h, w, 3) uint8 RGB.

    net: what `open_net` gave (open it once for many pictures), or a file.
    picture: a path, bytes, an array or a PIL image.
    size: the longer side of the result in pixels (default: that of the picture). Strokes have the size that the net
        learnt, in pixels: a larger picture has finer ones.
    max_memory: bytes; a picture that would need more is refused before it is begun.

    Raises InvalidOption where the picture is too large or too small, UnreadableFile where it is none.
    """
    opened = net if isinstance(net, Net) else open_net(net)
    image = read_image(picture)
    check(opened, resized_shape(image.shape[:2], size), max_memory)
    return to_image(opened.paint(to_sample(resized(image, size))))


def check(net: Net, spatial: Sequence[int], max_memory: int = MEMORY) -> None:
    """Raises InvalidOption unless the net can paint (height, width) pixels in so much memory."""
    height, width = spatial
    if min(spatial) < net.smallest:
        raise InvalidOption(f"{width} x {height} pixels are too few; this net needs {net.smallest} along each side")
    if (needed := net.memory(spatial)) > max_memory:
        longer = _fitting(net, spatial, max_memory, int(max(spatial) * (max_memory / needed) ** 0.5))
        raise InvalidOption(
            f"{width} x {height} pixels would need {needed / 1e9:.1f} GB, more than {max_memory / 1e9:.1f} GB; "
            + (f"choose --size {longer} or less" if longer else "this net needs more for a picture of any size")
        )


def _fitting(net: Net, spatial: Sequence[int], max_memory: int, most: int) -> int:
    """The longer side, at most `most`, of the largest picture of this shape that the net can paint; 0 where none is."""
    for longer in range(most, 0, -1):
        ratio = longer / max(spatial)
        # The picture's own shape may be a little less narrow than that of the pixels that were asked for first.
        size = [min(longer, int(n * ratio) + 1) for n in spatial]
        if min(size) <= net.smallest:
            return 0
        if net.memory(size) <= max_memory:
            return longer
    return 0


def to_sample(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 -> (1, 3, h, w) float32, 0...1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def to_image(sample: np.ndarray) -> np.ndarray:
    """(1, 3, h, w), 0...1 -> (h, w, 3) uint8, rounded. Raises WeightsError where the net gave no numbers."""
    if not np.isfinite(sample).all():
        raise WeightsError("what the net painted is no picture, but values that are no numbers: its file is damaged")
    return np.ascontiguousarray(np.rint(sample[0].clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def _said(metadata: dict[str, Any]) -> str:
    return ", ".join(sorted(metadata)) or "no metadata"
