"""Receptive fields against what autograd measures: the input positions on which a unit's value depends."""

import random
import subprocess
import sys

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
PAD = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LARGEST = {1: 90, 2: 36, 3: 13}  # fields of random nets: what autograd measures quickly
RANDOM = 30  # random nets per dimension in the default run, and in the long one:
MANY = 200


class Branches(nn.Module):
    """The sum, or the concatenation, of branches."""

    def __init__(self, *branches: nn.Module, cat: bool = False) -> None:
        super().__init__()
        self.branches, self.cat = nn.ModuleList(branches), cat

    def forward(self, x: Tensor) -> Tensor:
        found = [branch(x) for branch in self.branches]
        return torch.cat(found, 1) if self.cat else torch.stack(found).sum(0) if len(found) > 2 else found[0] + found[1]


class RandomNet:
    """Layers with random geometry, different along each axis."""

    def __init__(self, spatial_dims: int, seed: int) -> None:
        self.dims, self.rng = spatial_dims, random.Random(seed)

    def axes(self, low: int, high: int) -> tuple[int, ...]:
        return tuple(self.rng.randint(low, high) for _ in range(self.dims))

    def conv(self, channels: int, out: int) -> nn.Module:
        mode = self.rng.choice(["zeros", "zeros", "reflect", "replicate"])
        groups = self.rng.choice([1, channels]) if out % channels == 0 else 1
        return CONV[self.dims](
            channels, out, self.axes(1, 4), self.axes(1, 3), self.axes(0, 2), self.axes(1, 3), groups, padding_mode=mode
        )

    def pool(self) -> nn.Module:
        kernel = self.axes(1, 3)
        padding = tuple(self.rng.randint(0, k // 2) for k in kernel)
        ceil = self.rng.random() < 0.5
        if self.rng.random() < 0.5:
            return AVG[self.dims](kernel, self.axes(1, 2), padding, ceil)
        return MAX[self.dims](kernel, self.axes(1, 2), padding, self.axes(1, 2), ceil_mode=ceil)

    def same(self, channels: int, stride: tuple[int, ...]) -> nn.Module:
        """A convolution that keeps the number of positions, but for its stride."""
        half, dilation = self.axes(0, 2), self.axes(1, 2)
        kernel, padding = (2 * h + 1 for h in half), (h * d for h, d in zip(half, dilation, strict=True))
        return CONV[self.dims](channels, channels, tuple(kernel), stride, tuple(padding), dilation)

    def residual(self, channels: int, depth: int) -> nn.Module:
        """x + body(x), perhaps with stride, and with another such block inside."""
        stride, one = self.axes(1, 2) if depth else (1,) * self.dims, (1,) * self.dims
        plain = max(stride) == 1
        shortcut = nn.Identity() if plain else CONV[self.dims](channels, channels, 1, stride)
        inner = self.residual(channels, depth - 1) if depth and self.rng.random() < 0.4 else nn.Identity()
        body = [self.same(channels, stride), NORM[self.dims](channels), nn.ReLU(inplace=True), inner]
        return Branches(shortcut, nn.Sequential(*body, self.same(channels, one)))

    def inception(self, channels: int) -> nn.Module:
        stride = self.axes(1, 2)
        half = self.axes(0, 1)
        pool = MAX[self.dims](tuple(2 * h + 1 for h in half), stride, half)
        branches = [self.same(channels, stride), pool, self.same(channels, stride)]
        return Branches(*branches[: self.rng.randint(2, 3)], cat=self.rng.random() < 0.5)

    def layer(self, channels: int) -> nn.Module:
        kind = self.rng.choice(["conv", "conv", "pool", "residual", "residual", "inception", "pad"])
        if kind == "conv":
            return self.conv(channels, channels * self.rng.choice([1, 2]))
        if kind == "pad":
            return PAD[self.dims](self.axes(0, 2) + self.axes(0, 2), 0.0)
        if kind == "pool":
            return self.pool()
        return self.residual(channels, 1) if kind == "residual" else self.inception(channels)

    def build(self) -> nn.Sequential:
        """One to five layers whose field is not too large to be measured."""
        layers: list[nn.Module] = []
        x = torch.zeros(1, 1, *[LARGEST[self.dims] + 40 // self.dims] * self.dims)
        channels = 1
        for _ in range(self.rng.randint(1, 5)):
            longer = nn.Sequential(*layers, self.layer(channels), nn.ReLU())
            try:
                size = receptive_field(longer.eval(), x, "").size
            except RuntimeError:  # torch's: too little is left of x for a kernel
                continue
            if max(size) <= LARGEST[self.dims] and longer(x).shape[1] <= 6:
                layers = list(longer)
                channels = longer(x).shape[1]
        return nn.Sequential(*layers)


def measured(net: nn.Module, out: Tensor, x: Tensor, position: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(first, last + 1) per axis of the positions of x with a gradient from the unit at `position` of `out`."""
    (slope,) = torch.autograd.grad(out[(slice(None), slice(None), *position)].sum(), x, retain_graph=True)
    support = slope.abs().sum((0, 1)) > 0
    spans = []
    for axis in range(support.ndim):
        touched = support.movedim(axis, 0).reshape(len(support.movedim(axis, 0)), -1).any(1).nonzero()[:, 0]
        spans.append((int(touched[0]), int(touched[-1]) + 1))
    return tuple(spans)


def ramps(shape: tuple[int, ...]) -> Tensor:
    """Samples whose maximum lies at either end of each axis in turn, and random ones: max pooling lets one position
    through at a time, so that only together they show all that is looked at."""
    grids = torch.meshgrid(*[torch.arange(s) for s in shape], indexing="ij")
    both = torch.stack([ramp.reshape(shape) for grid in grids for ramp in (grid, -grid)])
    return (torch.cat([both - both.min(), torch.rand((4, *shape))]).double() + 0.1)[:, None].requires_grad_()


def check_random_net(spatial_dims: int, seed: int) -> None:
    """Every layer of the net: the first unit whose field lies inside the sample sees just that."""
    torch.manual_seed(seed)
    net = RandomNet(spatial_dims, seed * 10 + spatial_dims).build().eval()
    names = [name for name, module in net.named_modules() if not isinstance(module, (nn.ReLU, nn.ModuleList))]
    guess = torch.zeros(1, 1, *[LARGEST[spatial_dims] + 40 // spatial_dims] * spatial_dims)
    fields = receptive_fields(net, guess, names)
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(0.5, 1.5)  # all positive, so that nothing cancels
    first = {name: [-(o // s) for o, s in zip(f.offset, f.stride, strict=True)] for name, f in fields.items()}
    least = guess.shape[2] + 3  # in a smaller sample a deep layer may have one position only, and no stride, or none
    shape = tuple(
        max(least, *(f.offset[k] + max(0, first[name][k]) * f.stride[k] + f.size[k] + 2 for name, f in fields.items()))
        for k in range(spatial_dims)
    )
    x = ramps(shape)
    found = activations(net.double(), x, names)
    assert receptive_fields(net, x[:1].detach(), names) == fields  # whatever the sample's size
    for name, out in found.items():
        position = tuple(max(0, i) for i in first[name])
        field = fields[name]
        start = [o + i * s for o, i, s in zip(field.offset, position, field.stride, strict=True)]
        assert all(f >= 0 and f + r <= n for f, r, n in zip(start, field.size, shape, strict=True))
        assert measured(net, out, x, position) == field.span(position, shape), (name, field, net)


@pytest.mark.parametrize("seed", range(RANDOM))
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_random_nets_agree_with_autograd(spatial_dims: int, seed: int) -> None:
    check_random_net(spatial_dims, seed)


@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_many_random_nets_agree_with_autograd(spatial_dims: int) -> None:
    for seed in range(RANDOM, MANY):
        check_random_net(spatial_dims, seed)


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
    halves = nn.Sequential(pool(3))
    assert receptive_field(halves, x, "0") == ReceptiveField(
        (3,) * spatial_dims, (3,) * spatial_dims, (0,) * spatial_dims
    )


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_normalisation_sees_what_its_statistics_are_of(spatial_dims: int, trained: bool) -> None:
    """Running statistics are numbers, by which a trained net is element-wise; others are of the sample, also then."""
    instance = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[spatial_dims]
    norms: list[nn.Module] = [
        NORM[spatial_dims](4), instance(4, track_running_stats=True), nn.LocalResponseNorm(3) if spatial_dims < 3 else
        nn.Identity(), NORM[spatial_dims](4, track_running_stats=False), instance(4), instance(4, affine=True),
        nn.GroupNorm(2, 4), nn.LayerNorm([4, *[7] * spatial_dims]), nn.LayerNorm(7),
    ]  # fmt: skip
    torch.manual_seed(spatial_dims)
    shape = (9,) * spatial_dims
    for norm in norms:
        net = nn.Sequential(CONV[spatial_dims](1, 4, 3), norm, CONV[spatial_dims](4, 1, 1)).double().train(not trained)
        x = torch.rand(1, 1, *shape, dtype=torch.float64, requires_grad=True)
        if not trained and getattr(norm, "track_running_stats", False):
            continue  # counted as it will be once it is trained
        position = (1,) * spatial_dims
        assert measured(net, net(x), x, position) == receptive_field(net, x, "").span(position, shape), norm


def test_batch_normalisation_counts_as_it_will_once_it_is_trained() -> None:
    for norm in (nn.BatchNorm1d(2), nn.InstanceNorm1d(2, track_running_stats=True)):
        assert receptive_field(norm.train(), torch.zeros(1, 2, 9), "").size == (1,)


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


class Turned(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.dim)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_channels_may_come_the_other_way_round(spatial_dims: int) -> None:
    """As in nets that want blue first."""
    x = torch.zeros(1, 3, *[8] * spatial_dims)
    for dim in (1, -1 - spatial_dims):
        net = nn.Sequential(Turned(dim), CONV[spatial_dims](3, 2, 3, 2, 1))
        assert receptive_field(net, x, "1") == receptive_field(net[1], x, "")
    with pytest.raises(InvalidOption, match="turned round along a spatial axis"):
        receptive_field(Turned(-1), x, "")


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
    with pytest.raises(UnknownName, match="'branches.0'"):
        receptive_field(net, torch.zeros(1, 1, 8), "branch.0")


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


def test_torchs_compiler_is_not_loaded() -> None:
    """It takes two seconds, before anything is seen of a picture."""
    code = """
import sys, torch
from likeness.nets.receptive_field import receptive_field
from likeness.nets.perceptual import Architecture, Vgg
field = receptive_field(Vgg(Architecture(widths=(1, 1), depths=(1, 1))), torch.zeros(1, 3, 16, 16), "relu2_1")
assert field.size == (8, 8), field
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
