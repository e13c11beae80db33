"""SHA-256 of tensors and nets: by which a run that goes on knows what it was begun with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def digest(*parts: Any) -> str:
    """Of texts as bytes, and of whatever else is read as bytes."""
    one = hashlib.sha256()
    for part in parts:
        one.update(part)
    return one.hexdigest()


def raw(x: Tensor) -> np.ndarray:
    """The bytes of a tensor's values (n,) uint8."""
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def of_tensor(x: Tensor, before: str = "") -> str:
    """Of a tensor's type, shape and values, and of what came `before` it."""
    return digest(f"{before} {x.dtype} {tuple(x.shape)}".encode(), raw(x))


def of_net(net: nn.Module) -> str:
    """What tells one net from another: what it is made of, and its weights."""
    parts: list[Any] = [repr(net).encode()]
    for name, value in net.state_dict().items():
        parts += [name.encode(), raw(value) if isinstance(value, Tensor) else repr(value).encode()]
    return digest(*parts)
