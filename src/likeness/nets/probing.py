"""What a foreign encoder takes and gives is not believed but tried out, before its name enters the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidOption, WeightsError
from .engine import Engine

if TYPE_CHECKING:
    from .catalogue import Preprocessing

SIDE = 112


def encode_batch(engine: Engine, crops: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Unit codes (n, d) float32 of aligned crops (n, size, size, 3) uint8 RGB: preprocess, run, mirror, normalise.

    A net whose batch is fixed runs one group at a time. Raises InvalidOption where the net does not take such crops.
    """
    pixels = crops[..., ::-1] if preprocessing.input_order == "bgr" else crops
    x = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)  # [n, 3, size, size]
    x -= np.float32(preprocessing.mean)
    x /= np.float32(preprocessing.scale)
    if not preprocessing.mirror:
        return unit(_run(engine, x))
    codes = unit(_run(engine, np.concatenate([x, x[..., ::-1]])))  # one run of twice as many: both cores have work
    return unit(codes[: len(x)] + codes[len(x) :])


def unit(codes: np.ndarray) -> np.ndarray:
    """Rows brought to length 1, as float32. A row of zeros, or not finite, is no code: WeightsError."""
    norms = np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 1e-12).all()):
        raise WeightsError(
            "the encoder gave a code that is zero or not finite; its weights or its preprocessing are wrong"
        )
    return (codes / norms).astype(np.float32)


def _run(engine: Engine, x: np.ndarray) -> np.ndarray:
    fixed = engine.input_shape[0] if engine.input_shape else None
    if fixed is None or fixed == len(x):
        return engine.run(x)[0]
    if fixed != 1:
        raise InvalidOption(
            f"the net takes exactly {fixed} pictures at a time; export it with a batch of 1 or a dynamic one"
        )
    return np.concatenate([engine.run(one[None])[0] for one in x])


def probe_encoder(data: bytes, preprocessing: Preprocessing, *, label: str) -> int:
    """The code length of the ONNX encoder `data`, found by running it on three noise pictures.

    Raises WeightsError where it is no ONNX net, InvalidOption where it is not an encoder of 112 x 112 crops.
    """
    engine = Engine(data)
    shape = engine.input_shape
    if len(shape) != 4 or shape[1] not in (None, 3) or any(side not in (None, SIDE) for side in shape[2:]):
        wanted = " x ".join("any" if n is None else str(n) for n in shape)
        raise InvalidOption(f"{label}: an encoder takes (batch, 3, {SIDE}, {SIDE}) pictures; this net takes {wanted}")
    if len(engine.output_names) != 1:
        raise InvalidOption(
            f"{label}: an encoder gives one output (batch, d); this net gives {', '.join(engine.output_names)}"
        )
    crops = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    try:
        raw = _run(engine, np.zeros((1, 3, SIDE, SIDE), np.float32))
        if raw.ndim != 2 or len(raw) != 1 or raw.shape[1] < 2:
            raise InvalidOption(f"{label}: an encoder gives (batch, d); for one picture this net gives {raw.shape}")
        together = encode_batch(engine, crops, preprocessing)
        alone = np.concatenate([encode_batch(engine, crops[i : i + 1], preprocessing) for i in range(len(crops))])
    except WeightsError as error:
        raise InvalidOption(f"{label}: this net does not work on {SIDE} x {SIDE} pictures: {error}") from error
    if together.shape != alone.shape or np.abs(together - alone).max() > 1e-3:
        raise InvalidOption(
            f"{label}: a picture's code changes with the pictures beside it; export the net in eval mode"
        )
    if np.abs(together - together[0]).max() < 1e-6:
        raise InvalidOption(
            f"{label}: the net gives every picture the same code; check its weights, --mean and --scale"
        )
    return int(together.shape[1])
