"""A net for style by its name in the catalogue or by its file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidOption, UnknownName, WeightsError
from . import catalogue
from .perceptual import Vgg, read_net


@dataclass(frozen=True, eq=False)
class Opened:
    """A net and the fingerprint of the file it was read from."""

    net: Vgg
    fingerprint: str


def open_net(encoder: str | os.PathLike[str], *, on_progress: catalogue.Progress | None = None) -> Opened:
    """The perceptual net called `encoder` in the catalogue (downloaded first where it is only listed), else the one in
    the file of this name (`nets.perceptual.read_net`).

    on_progress: of the download. Raises UnknownName where there is neither, with the nearest name; WeightsError where
    the weights were altered, are damaged or cannot be fetched; InvalidOption where the name is another kind of net's.
    """
    if isinstance(encoder, str):
        try:
            one = catalogue.entry(encoder)
        except UnknownName as error:
            if not os.path.exists(encoder):
                if os.path.dirname(encoder) or encoder.endswith((".safetensors", ".npz")):
                    raise WeightsError(f"{encoder}: no such file") from error
                raise UnknownName(f"{error} (and there is no such file)") from error
        else:
            if one.kind != "perceptual":
                raise InvalidOption(
                    f"{encoder!r} is of the kind {one.kind}; style needs a perceptual net, as 'vgg-slim'"
                )
            return Opened(read_net(catalogue.path(encoder, on_progress=on_progress)), one.fingerprint)
    net = read_net(encoder)
    with open(Path(encoder), "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Opened(net, catalogue.fingerprint(sha256, None, None))
