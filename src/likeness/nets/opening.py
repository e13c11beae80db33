"""A net for style by its name in the catalogue or by its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidOption, UnknownName, WeightsError
from ..samples.files import sha256_of
from . import catalogue
from .entries import Kind
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
    path, fingerprint = locate(encoder, kind="perceptual", example="vgg-slim", on_progress=on_progress)
    return Opened(read_net(path), fingerprint)


def locate(
    net: str | os.PathLike[str], *, kind: Kind, example: str, on_progress: catalogue.Progress | None = None
) -> tuple[Path, str]:
    """File and fingerprint of the net of this kind that the catalogue calls `net`, else of the file of this name.

    example: what to name where another kind was named. Raises as `open_net`.
    """
    if isinstance(net, str):
        try:
            one = catalogue.entry(net)
        except UnknownName as error:
            if not os.path.exists(net):
                if os.path.dirname(net) or net.endswith((".safetensors", ".npz")):
                    raise WeightsError(f"{net}: no such file") from error
                raise UnknownName(f"{error} (and there is no such file)") from error
        else:
            if one.kind != kind:
                raise InvalidOption(
                    f"{net!r} is of the kind {one.kind}; wanted is one of the kind {kind}, as {example!r}"
                )
            return catalogue.path(net, on_progress=on_progress), one.fingerprint
    try:
        sha256 = sha256_of(net)
    except OSError as error:
        raise WeightsError(f"{os.fspath(net)}: cannot be read: {error.strerror}") from error
    return Path(net), catalogue.fingerprint(sha256, None, None)
