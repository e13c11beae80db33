"""Which part of the sample a unit of a layer sees: size, stride and offset of its receptive field, per axis.

The net is run once on an example; beside each tensor runs a note of what one of its positions sees of the input.
Convolution and pooling widen it (Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural
networks"), element-wise operations unite what their inputs see, flattening and global pooling see everything.
Whatever is not known here raises an error that names it: no silent guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import InvalidOption
from .activations import activations


@dataclass(frozen=True)
class ReceptiveField:
    """Per spatial axis: the unit at position i sees the input positions `offset + i * stride` ... `offset + i *
    stride + size - 1`.

    Negative positions and those beyond the end lie in the padding. Stride 0: every unit of the layer sees the same.
    With dilation or branches the field may have holes; size is its full extent.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: tuple[int, ...]

    def span(self, position: Sequence[int], shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """(first, last + 1) per axis of what the unit at `position` sees of a sample of spatial size `shape`.

        Exact where the field lies inside the sample; where it reaches over the border, some layer's padding may hide a
        part of what is left, and this is an upper bound.
        """
        if not len(position) == len(shape) == len(self.size):
            raise InvalidOption(
                f"position {tuple(position)} and shape {tuple(shape)} must have {len(self.size)} numbers each"
            )
        firsts = [o + i * s for o, i, s in zip(self.offset, position, self.stride, strict=True)]
        return tuple((max(f, 0), min(f + r, n)) for f, r, n in zip(firsts, self.size, shape, strict=True))

    def to_dict(self) -> dict[str, list[int]]:
        return {name: list(value) for name, value in asdict(self).items()}


def receptive_field(net: nn.Module, x: Tensor, layer: str) -> ReceptiveField:
    """Receptive field of one layer of `net`, named as in `activations`; x (b, c, *spatial) is any sample that the net
    takes.
    """
    return receptive_fields(net, x, [layer])[layer]


def receptive_fields(net: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, ReceptiveField]:
    """Receptive fields of several layers from one forward pass, no deeper than needed.

    Known: convolution (stride, padding, dilation, groups), max and average pooling, padding, element-wise functions,
    sums and concatenations of branches, channels in another order, normalisation; global pooling, flattening and linear
    layers (which see everything). Batch normalisation with running statistics counts as element-wise, as it is when a
    trained net is used; without them, and instance and group normalisation, it sees the whole sample; layer
    normalisation sees the axes over which it normalises. Axes that the net folds into one, as torch's local response
    normalisation does with the last two of a volume, count as seen whole.

    Raises UnknownName for a layer the net does not have, InvalidOption for an operation not in this list or for
    branches that meet with different strides.
    """
    x = x.detach().clone()
    with torch.no_grad(), _Tracer(x) as tracer:
        found = activations(net, x, layers)
    result = {}
    for name, out in found.items():
        note = tracer.notes.get(out)
        if note is None:
            raise InvalidOption(f"layer {name!r} does not depend on the sample")
        axes = [axis for axis, _ in note]
        result[name] = ReceptiveField(
            tuple(a.size for a in axes), tuple(a.stride for a in axes), tuple(a.offset for a in axes)
        )
    return result


@dataclass(frozen=True)
class _Axis:
    size: int
    stride: int
    offset: int

    def all(self, positions: int) -> _Axis:
        """What `positions` neighbouring units see together."""
        return _Axis(self.size + self.stride * (positions - 1), 0, self.offset)

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> _Axis:
        return _Axis(
            self.size + self.stride * dilation * (kernel - 1), self.stride * stride, self.offset - self.stride * padding
        )

    def union(self, other: _Axis) -> _Axis:
        first = min(self.offset, other.offset)
        last = max(self.offset + self.size, other.offset + other.size)
        if self.stride != other.stride:
            raise InvalidOption(
                f"two branches meet with strides {self.stride} and {other.stride}: no one field describes their sum"
            )
        return _Axis(last - first, self.stride, first)


# Per spatial axis of the input: what one position sees, and the dimension of the tensor along which that moves.
# None: the tensor has no such dimension any more (or each of its positions sees everything).
_Note = tuple[tuple[_Axis, int | None], ...]


class _Tracer(TorchDispatchMode):
    """Keeps `notes` of every tensor computed from the sample."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.notes = WeakTensorKeyDictionary()
        self.notes[x] = tuple((_Axis(1, 1, 0), 2 + k) for k in range(x.ndim - 2))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would load its compiler, two seconds, only to have it told that nothing is compiled here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [t for t in _tensors((args, kwargs)) if t in self.notes]
        outputs = _tensors(out)
        if inputs and outputs:
            name = func.overloadpacket.__name__
            rule = _RULES.get(name) or (
                _union if torch.Tag.pointwise in func.tags or name.rstrip("_") in _POINTWISE else None
            )
            if rule is None:
                raise InvalidOption(f"the receptive field of the operation {func} is not known")
            note = rule([self.notes[t] for t in inputs], inputs, outputs[0], func, args, kwargs or {})
            for tensor in outputs:
                self.notes[tensor] = note
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _argument(func: Any, args: Any, kwargs: Any, name: str, default: Any = None) -> Any:
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[place] if place < len(args) else kwargs.get(name, argument.default_value)
    return default


def _window(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    """Convolution and pooling: a window of `kernel` positions along each of the last dimensions."""
    if _argument(func, args, kwargs, "transposed", False):
        raise InvalidOption("the receptive field of a transposed convolution is not known")
    weight = _argument(func, args, kwargs, "weight")
    kernel = list(weight.shape[2:]) if weight is not None else _argument(func, args, kwargs, "kernel_size")
    rank = len(kernel)
    stride = _argument(func, args, kwargs, "stride") or kernel

    def along(value: Any, dim: int) -> int:
        value = [value] if isinstance(value, int) else value
        return value[0] if len(value) == 1 else value[dim - (out.ndim - rank)]

    padding = _argument(func, args, kwargs, "padding")
    dilation = _argument(func, args, kwargs, "dilation", 1)

    def widen(axis: _Axis, dim: int | None) -> tuple[_Axis, int | None]:
        if dim is None or dim < out.ndim - rank:
            return axis, dim
        return axis.window(along(kernel, dim), along(stride, dim), along(padding, dim), along(dilation, dim)), dim

    return tuple(widen(axis, dim) for axis, dim in notes[0])


def _union(notes: list[_Note], inputs: list[Tensor], out: Tensor, *_: Any) -> _Note:
    """Element-wise operations, with broadcasting: dimensions are counted from the last."""
    moved = []
    for note, tensor in zip(notes, inputs, strict=True):
        shift = out.ndim - tensor.ndim
        moved.append(tuple(_aligned(axis, dim, shift, tensor, out) for axis, dim in note))
    return _joined(moved, out)


def _joined(notes: Sequence[_Note], out: Tensor) -> _Note:
    result = notes[0]
    for other in notes[1:]:
        result = tuple(_join(a, b, out) for a, b in zip(result, other, strict=True))
    return result


def _aligned(axis: _Axis, dim: int | None, shift: int, tensor: Tensor, out: Tensor) -> tuple[_Axis, int | None]:
    if dim is not None and tensor.shape[dim] == 1 and out.shape[dim + shift] > 1:
        return axis.all(1), None
    return axis, None if dim is None else dim + shift


def _join(a: tuple[_Axis, int | None], b: tuple[_Axis, int | None], out: Tensor) -> tuple[_Axis, int | None]:
    """Where one of two branches has lost the axis (a gate that looks at everything), so has their union."""
    if a[1] == b[1]:
        return a[0].union(b[0]), a[1]
    if a[1] is not None and b[1] is not None:
        raise InvalidOption("two branches meet with their axes in different order")
    return _seen(a, out).union(_seen(b, out)), None


def _seen(entry: tuple[_Axis, int | None], tensor: Tensor) -> _Axis:
    axis, dim = entry
    return axis if dim is None else axis.all(tensor.shape[dim])


def _everything(notes: list[_Note], inputs: list[Tensor], out: Tensor, *_: Any) -> _Note:
    """Each output sees all that any input sees."""
    result = [_seen(entry, inputs[0]) for entry in notes[0]]
    for note, tensor in zip(notes[1:], inputs[1:], strict=True):
        result = [a.union(_seen(entry, tensor)) for a, entry in zip(result, note, strict=True)]
    return tuple((axis, None) for axis in result)


def _pad(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    """Explicit padding; mirrored and repeated positions are counted as padding, though they show the sample's border
    again.
    """
    pad = _argument(func, args, kwargs, "pad") or _argument(func, args, kwargs, "padding")

    def step(entry: tuple[_Axis, int | None]) -> tuple[_Axis, int | None]:
        axis, dim = entry
        if dim is None or 2 * (out.ndim - 1 - dim) >= len(pad):
            return entry
        return axis.window(1, 1, pad[2 * (out.ndim - 1 - dim)], 1), dim

    return tuple(step(entry) for entry in notes[0])


def _reduce(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    """Sums, means and extremes over some dimensions; layer normalisation, over the last ones."""
    ndim = inputs[0].ndim
    normalized = _argument(func, args, kwargs, "normalized_shape")
    dims = _argument(func, args, kwargs, "dim") if normalized is None else range(ndim - len(normalized), ndim)
    gone = (
        set(range(ndim))
        if dims is None or dims == []
        else {d % ndim for d in ([dims] if isinstance(dims, int) else dims)}
    )
    keep = out.ndim == ndim

    def step(entry: tuple[_Axis, int | None]) -> tuple[_Axis, int | None]:
        axis, dim = entry
        if dim is None or dim in gone:
            return _seen(entry, inputs[0]), None
        return axis, dim if keep else dim - sum(g < dim for g in gone)

    return tuple(step(entry) for entry in notes[0])


def _batch_norm(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    """By running statistics it is element-wise; without any (in torch also instance normalisation) by the sample's."""
    if _argument(func, args, kwargs, "running_mean") is None:
        return _everything(notes, inputs, out)
    return _union(notes, inputs, out)


def _adaptive(notes: list[_Note], inputs: list[Tensor], out: Tensor, *_: Any) -> _Note:
    """Adaptive pooling: to one position it sees everything; to as many as there were it is element-wise."""

    def step(entry: tuple[_Axis, int | None]) -> tuple[_Axis, int | None]:
        axis, dim = entry
        if dim is None or out.shape[dim] == inputs[0].shape[dim]:
            return entry
        if out.shape[dim] == 1:
            return _seen(entry, inputs[0]), None
        n, m = inputs[0].shape[dim], out.shape[dim]
        if n % m:
            raise InvalidOption(
                f"adaptive pooling of {n} positions to {m}: its windows differ in size, no one field describes them"
            )
        return axis.window(n // m, n // m, 0, 1), dim

    return tuple(step(entry) for entry in notes[0])


def _reshape(notes: list[_Note], inputs: list[Tensor], out: Tensor, *_: Any) -> _Note:
    """A view keeps an axis that the same dimension still holds; other axes are folded away: counted as everything."""
    old, new = list(inputs[0].shape), list(out.shape)
    front = 0
    while front < min(len(old), len(new)) and old[front] == new[front]:
        front += 1
    back = 0
    while back < min(len(old), len(new)) - front and old[-1 - back] == new[-1 - back]:
        back += 1

    def step(entry: tuple[_Axis, int | None]) -> tuple[_Axis, int | None]:
        axis, dim = entry
        if dim is None or dim < front:
            return entry
        if dim >= len(old) - back:
            return axis, dim + len(new) - len(old)
        return _seen(entry, inputs[0]), None

    return tuple(step(entry) for entry in notes[0])


def _concatenate(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    dim = _argument(func, args, kwargs, "dim", 0) % out.ndim
    if any(d == dim for note in notes for _, d in note):
        raise InvalidOption("the receptive field of a concatenation along a spatial axis is not known")
    return _union(notes, inputs, out)


def _flip(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    """Of channels: nets that want blue first."""
    turned = {dim % out.ndim for dim in _argument(func, args, kwargs, "dims")}
    if any(dim in turned for _, dim in notes[0]):
        raise InvalidOption("the receptive field of a sample turned round along a spatial axis is not known")
    return notes[0]


def _stack(notes: list[_Note], inputs: list[Tensor], out: Tensor, func: Any, args: Any, kwargs: Any) -> _Note:
    """Branches along a new dimension."""
    new = _argument(func, args, kwargs, "dim", 0) % out.ndim
    moved = [tuple((axis, dim if dim is None or dim < new else dim + 1) for axis, dim in note) for note in notes]
    return _joined(moved, out)


_POINTWISE = {
    "clone", "alias", "detach", "_to_copy", "contiguous", "copy", "native_dropout", "dropout", "_prelu_kernel", "prelu",
    "expand",
}  # fmt: skip
_RULES: dict[str, Callable[..., _Note]] = {
    "convolution": _window,
    "cat": _concatenate,
    "flip": _flip,
    "stack": _stack,
    "constant_pad_nd": _pad,
    **dict.fromkeys((f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)), _pad),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten"), _reshape),
    **dict.fromkeys((f"max_pool{n}d_with_indices" for n in (1, 2, 3)), _window),
    **dict.fromkeys((f"avg_pool{n}d" for n in (1, 2, 3)), _window),
    **dict.fromkeys(
        (f"{p}adaptive_{k}_pool{n}d" for p in ("", "_") for k in ("avg", "max") for n in (1, 2, 3)), _adaptive
    ),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "linalg_vector_norm", "native_layer_norm"), _reduce),
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "cudnn_batch_norm",
            "batch_norm",
            "_batch_norm_with_update",
        ),
        _batch_norm,
    ),
    **dict.fromkeys(("addmm", "mm", "bmm", "linear", "native_group_norm"), _everything),
}
