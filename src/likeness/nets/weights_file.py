"""Weights and what they are weights of in one safetensors file: the reading and writing that all our nets share.

Equal weights are equal bytes, and whatever is wrong with a file is a WeightsError that names it: a file of ours holds
the SHA-256 of all that it says, so that not a bit of it can change unnoticed. A reader is made of

    tensors, metadata = weights_file.read(path)
    ... # does the metadata say that it is one of ours?
    with weights_file.damaged(path):
        net = Net(Architecture(**weights_file.fields(metadata[KIND])))
    return weights_file.fill(net, tensors, path).eval()
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..samples import files
from .digest import digest, of_tensor

Net = TypeVar("Net", bound=nn.Module)
# What tensors are made of, by safetensors' names, in the order in which files hold them: the last come first.
_CODES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
SEAL = "sha256"  # of the tensors and of the rest of the metadata; files of others have none
COUNTER = "num_batches_tracked"  # of batch normalisation: never used by our nets, so it is not kept


def save(net: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str], *, half: bool = True) -> None:
    """Write the weights of `net` and `metadata`.

    With `half`, matrices and kernels are float16; vectors (biases, normalisation) stay float32: they are few, and
    running variances would underflow. Raises StorageError.
    """
    tensors = {
        name: value.half() if half and value.ndim > 1 else value
        for name, value in net.state_dict().items()
        if not name.endswith(COUNTER)
    }
    write(path, tensors, metadata)


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` and `metadata`, sealed, so that equal ones always give equal bytes: those of the safetensors
    library, but for its metadata, whose order differs from run to run. One tensor after the other goes to the disk:
    those that fill the memory are not copied. Raises StorageError."""
    order = list(_CODES)
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted({**metadata, SEAL: _seal(tensors, metadata)}.items()))}
    end = 0
    for name in names:
        one = tensors[name]
        begin, end = end, end + one.numel() * one.element_size()
        header[name] = {"dtype": _CODES[one.dtype], "shape": list(one.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors must begin at a multiple of 8

    def stream(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

    files.atomic_write(path, stream)


def read(path: str | os.PathLike[str], *, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (those whose names begin with `prefix`) and the metadata of a safetensors file. Raises WeightsError
    where it cannot be read as one, or (with all tensors) is not what was sealed."""
    from safetensors import safe_open

    with files.reading_safetensors(path), safe_open(os.fspath(path), "pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        tensors, metadata = {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    seal = metadata.pop(SEAL, None)
    if seal is not None and not prefix and seal != _seal(tensors, metadata):
        raise WeightsError(f"{path} is damaged: what it holds is not what was written into it")
    return tensors, metadata


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    seal = digest(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        seal = of_tensor(tensors[name], f"{seal} {name}")
    return seal


@contextmanager
def damaged(path: str | os.PathLike[str]) -> Iterator[None]:
    """What goes wrong within, while a net is made from the file's metadata, is a WeightsError: the file is damaged."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def fields(text: str) -> dict[str, Any]:
    """The fields of a dataclass from its JSON (lists become tuples). Raises ValueError."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"an object of names and values was expected, not {text[:40]!r}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def fill(net: Net, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Net:
    """Put `tensors` into `net`, in its own precision. Raises WeightsError where names or shapes do not fit."""
    wanted, given = _shapes(net.state_dict()), _shapes(tensors)
    wrong = [
        f"{name} is {given.get(name, 'missing')}, not {wanted.get(name, 'known')}"
        for name in sorted({*wanted, *given})
        if wanted.get(name) != given.get(name)
    ]
    if wrong:
        raise WeightsError(f"{path} does not fit the net: {'; '.join(wrong[:3])}")
    with damaged(path):
        net.load_state_dict(dict(tensors), strict=False)
    return net


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items() if not name.endswith(COUNTER)}
