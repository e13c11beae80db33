"""Receptive fields against what autograd measures: the input positions on which a unit's value depends."""

import random

import pytest
import torch
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName
from likeness.nets.activations import activations, layer_shapes
from likeness.nets.identity import Architecture, Tower
from likeness.nets.receptive_field import ReceptiveField, receptive_field, receptive_fields

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AVG = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIZE = {1: 160, 2: 60, 3: 24}


class Branches(nn.Module):
    """The sum, or the concatenation, of two branches."""

    def __init__(self, left: nn.Module, right: nn.Module, *, cat: bool = False) -> None:
        super().__init__()
        self.left, self.right, self.cat = left, right, cat

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        return torch.cat([a, b], 1) if self.cat else a + b


def random_net(spatial_dims: int, seed: int) -> nn.Sequential:
    """Convolutions, poolings and residual branches with random geometry, different along each axis."""
    rng = random.Random(seed)

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randint(low, high) for _ in range(spatial_dims))

    def layer(channels: int) -> nn.Module:
        kind = rng.choice(["conv", "conv", "avg", "max", "residual", "cat"])
        if kind == "conv":
            out = channels * 2
            groups = rng.choice([1, channels])
            return CONV[spatial_dims](channels, out, axes(1, 3), axes(1, 2), axes(0, 1), axes(1, 2), groups)
        if kind in ("avg", "max"):
            kernel = axes(2, 3)
            padding = tuple(rng.randint(0, k // 2) for k in kernel)
            return {"avg": AVG, "max": MAX}[kind][spatial_dims](kernel, axes(1, 2), padding)
        if kind == "residual":
            body = nn.Sequential(
                CONV[spatial_dims](channels, channels, 3, padding=1),
                NORM[spatial_dims](channels),
                nn.ReLU(inplace=True),
                CONV[spatial_dims](channels, channels, 3, padding=2, dilation=2),
            )
            return Branches(nn.Identity(), body)
        wide = CONV[spatial_dims](channels, channels, 5, 2, 2)
        return Branches(wide, CONV[spatial_dims](channels, channels, 1, 2), cat=True)

    layers: list[nn.Module] = []
    channels = 1
    for _ in range(rng.randint(1, 4)):
        layers += [layer(channels), nn.ReLU()]
        channels = next(m.shape[1] for m in [nn.Sequential(*layers)(torch.zeros((1, 1) + (40,) * spatial_dims))])
    return nn.Sequential(*layers)


def measured(net: nn.Module, layer: str, spatial_dims: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """The middle unit of `layer`, and (first, last + 1) per axis of the input positions with a gradient.

    All weights are positive, so that nothing cancels; max pooling lets one position through at a time, so several
    random inputs are put together, with the maximum pushed towards either end of each axis in turn.
    """
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(0.5, 1.5)
    shape = (SIZE[spatial_dims],) * spatial_dims
    ramps = torch.stack(
        [r.reshape(shape) for g in torch.meshgrid(*[torch.arange(s) for s in shape], indexing="ij") for r in (g, -g)]
    )
    x = (torch.cat([ramps - ramps.min(), torch.rand((4, *shape))]).double() + 0.1)[:, None].requires_grad_()
    out = activations(net.double().eval(), x, [layer])[layer]
    position = tuple(n // 2 for n in out.shape[2:])
    out[(slice(None), slice(None), *position)].sum().backward()
    assert x.grad is not None
    support = x.grad.abs().sum((0, 1)) > 0
    spans = []
    for axis in range(spatial_dims):
        touched = support.movedim(axis, 0).reshape(shape[0], -1).any(1).nonzero()[:, 0]
        spans.append((int(touched[0]), int(touched[-1]) + 1))
    return position, tuple(spans)


@pytest.mark.parametrize(("spatial_dims", "seed"), [(d, s) for d, n in ((1, 12), (2, 12), (3, 6)) for s in range(n)])
def test_random_nets_agree_with_autograd(spatial_dims: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = random_net(spatial_dims, seed * 10 + spatial_dims)
    shape = (SIZE[spatial_dims],) * spatial_dims
    names = [name for name, module in net.named_modules() if name and not isinstance(module, nn.ReLU)]
    fields = receptive_fields(net, torch.zeros(1, 1, *shape), names)
    exact = 0
    for name in names:
        position, spans = measured(net, name, spatial_dims)
        field = fields[name]
        for axis, ((first, last), (low, high)) in enumerate(zip(field.span(position, shape), spans, strict=True)):
            start = field.offset[axis] + position[axis] * field.stride[axis]
            if start >= 0 and start + field.size[axis] <= shape[axis]:
                assert (first, last) == (low, high), (name, axis, net)
                exact += 1
            else:  # part of it lies in some layer's padding: an upper bound
                assert first <= low and high <= last, (name, axis, net)
    assert exact >= 1


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_stride_and_offset_at_every_position(spatial_dims: int) -> None:
    """A ramp through an average tells where each unit's field lies: its value is the middle of the span."""
    net = nn.Sequential(AVG[spatial_dims](3, 2), AVG[spatial_dims](2, 3))
    shape = (30,) * spatial_dims
    field = receptive_field(net, torch.zeros(1, 1, *shape), "1")
    assert (field.size, field.stride, field.offset) == ((5,) * spatial_dims, (6,) * spatial_dims, (0,) * spatial_dims)
    for axis, ramp in enumerate(torch.meshgrid(*[torch.arange(30.0)] * spatial_dims, indexing="ij")):
        out = net(ramp[None, None])[0, 0]
        for position in torch.cartesian_prod(*[torch.arange(n) for n in out.shape]).reshape(-1, spatial_dims).tolist():
            first, last = field.span(position, shape)[axis]
            assert out[tuple(position)].item() == pytest.approx((first + last - 1) / 2)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_the_tower(spatial_dims: int) -> None:
    size = {1: 64, 2: 32, 3: 16}[spatial_dims]
    net = Tower(Architecture(spatial_dims=spatial_dims, size=size, in_channels=1, widths=(4, 8), blocks=(1, 1))).eval()
    x = torch.zeros(1, 1, *[size] * spatial_dims)
    fields = receptive_fields(net, x, list(layer_shapes(net, x)))
    one = (1,) * spatial_dims
    assert fields["stages.0.0"] == ReceptiveField((4,) * spatial_dims, (4,) * spatial_dims, (0,) * spatial_dims)
    assert fields["stages.0"].size == (20,) * spatial_dims  # two 3-wide convolutions at stride 4
    assert fields["stages.1"] == ReceptiveField(
        tuple(56 * i for i in one), tuple(8 * i for i in one), tuple(-24 * i for i in one)
    )
    assert fields["code"].span((0,) * spatial_dims, x.shape[2:]) == ((0, size),) * spatial_dims  # sees everything


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_flattening_and_global_pooling_see_everything(spatial_dims: int) -> None:
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[spatial_dims]
    head = nn.Sequential(CONV[spatial_dims](1, 2, 3), pool(1), nn.Flatten(), nn.Linear(2, 5))
    flat = nn.Sequential(CONV[spatial_dims](1, 2, 3, 2), nn.Flatten(), nn.Linear(2 * 4**spatial_dims, 5), nn.Softplus())
    x = torch.zeros(1, 1, *[9] * spatial_dims)
    for net in (head, flat):
        for name in ("3", ""):
            field = receptive_field(net, x, name)
            assert (field.size, field.stride) == ((9,) * spatial_dims, (0,) * spatial_dims)
    halves = (
        nn.Sequential(pool(3), nn.InstanceNorm1d(1))
        if spatial_dims == 1
        else nn.Sequential(pool(3), nn.GroupNorm(1, 1))
    )
    assert receptive_field(halves, x, "0") == ReceptiveField(
        (3,) * spatial_dims, (3,) * spatial_dims, (0,) * spatial_dims
    )
    if spatial_dims > 1:
        assert receptive_field(halves, x, "1").size == (9,) * spatial_dims


def test_a_gate_that_looks_at_everything() -> None:
    """Squeeze and excite: multiplied by a number computed from the whole map, each unit sees the whole map."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * self.gate(x.mean((2, 3)))[:, :, None, None].sigmoid()

    field = receptive_field(Gated(), torch.zeros(1, 1, 8, 8), "")
    assert field.span((4, 4), (8, 8)) == ((0, 8), (0, 8))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_of_all_kinds(mode: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=(1, 2), padding_mode=mode), nn.MaxPool2d(2, ceil_mode=True))
    if mode == "circular":  # wraps around: the field is in two pieces
        with pytest.raises(InvalidOption, match="not known"):
            receptive_field(net, torch.zeros(1, 1, 9, 9), "0")
    else:
        assert receptive_field(net, torch.zeros(1, 1, 9, 9), "1") == ReceptiveField((4, 4), (2, 2), (-1, -2))
    uneven = nn.Sequential(nn.ZeroPad1d((1, 2)), nn.Conv1d(1, 1, 4))
    assert receptive_field(uneven, torch.zeros(1, 1, 9), "1") == ReceptiveField((4,), (1,), (-1,))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.ConvTranspose2d(1, 1, 2, 2)), "transposed"),
        (nn.Sequential(nn.Upsample(scale_factor=2)), "not known"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(3)), "differ in size"),
        (nn.Sequential(nn.PixelShuffle(1), nn.Softmax(1)), "not known"),
    ],
)
def test_what_is_not_known_is_named(net: nn.Module, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        receptive_field(net, torch.zeros(1, 1, 8, 8), "" if len(net) > 1 else "0")


def test_branches_of_different_stride_and_foreign_layers_are_named() -> None:
    net = Branches(
        nn.Conv1d(1, 1, 3, padding=1), nn.Sequential(nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Identity())
    )
    assert receptive_field(net, torch.zeros(1, 1, 8), "").size[0] >= 8
    odd = Branches(nn.AvgPool1d(2, 1), nn.AvgPool1d(2, 2, padding=1))
    with pytest.raises(InvalidOption, match="strides 1 and 2"):
        receptive_field(odd, torch.zeros(1, 1, 4), "")
    with pytest.raises(UnknownName, match="'left'"):
        receptive_field(net, torch.zeros(1, 1, 8), "lift")


def test_a_field_as_plain_numbers() -> None:
    field = ReceptiveField((3, 5), (1, 2), (-1, 0))
    assert field.to_dict() == {"size": [3, 5], "stride": [1, 2], "offset": [-1, 0]}
    assert field.span((0, 1), (4, 4)) == ((0, 2), (2, 4))
    with pytest.raises(InvalidOption, match="2 numbers"):
        field.span((0,), (4, 4))


def test_a_layer_that_ignores_the_sample_is_named() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.free = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.free(torch.ones(1))

    with pytest.raises(InvalidOption, match="does not depend"):
        receptive_field(Constant(), torch.zeros(1, 1, 4), "free")
