"""Named layers of a net in one pass: the right values, no deeper than needed, and nothing left behind."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.errors import InvalidOption, UnknownName
from likeness.nets.activations import activations, layer_shapes, listening
from likeness.nets.identity import Architecture, Tower
from likeness.nets.layers import conv, max_pool


def make_net(spatial_dims: int, *, inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        conv(spatial_dims, 2, 3, 3, padding=1),
        nn.ReLU(inplace=inplace),
        max_pool(spatial_dims, 2),
        nn.Sequential(conv(spatial_dims, 3, 4, 3), nn.ReLU(inplace=inplace)),
    )


def sample(spatial_dims: int) -> Tensor:
    return torch.randn((2, 2) + (8,) * spatial_dims, generator=torch.Generator().manual_seed(1))


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


class Reused(nn.Module):
    """One convolution and one ReLU, used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.relu = nn.ReLU()
        self.idle = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.relu(self.conv(x))
        return x


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("too deep")


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_values_are_those_of_the_layers(spatial_dims: int, inplace: bool) -> None:
    net, x = make_net(spatial_dims, inplace=inplace), sample(spatial_dims)
    got = activations(net, x, ["3.0", "0", "2", "3"])
    plain = make_net(spatial_dims)
    first = plain[0](x)
    pooled = plain[2](first.relu())
    assert list(got) == ["3.0", "0", "2", "3"]
    for name, expected in {"0": first, "2": pooled, "3.0": plain[3][0](pooled), "3": plain[3](pooled)}.items():
        assert torch.equal(got[name], expected), name
    assert hooks(net) == 0


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_tap_changes_what_the_net_goes_on_with(spatial_dims: int, inplace: bool) -> None:
    seen: list[tuple[str, Tensor]] = []

    def tap(layer: str, a: Tensor) -> Tensor:
        seen.append((layer, a))
        return 2 * a

    net, x = make_net(spatial_dims, inplace=inplace), sample(spatial_dims)
    got = activations(net, x, ["2", "0"], tap)
    plain = make_net(spatial_dims)
    first = plain[0](x)
    pooled = plain[2]((2 * first).relu())
    assert [layer for layer, _ in seen] == ["0", "2"] and list(got) == ["2", "0"]
    for a, expected in ((seen[0][1], first), (got["0"], 2 * first), (seen[1][1], pooled), (got["2"], 2 * pooled)):
        assert torch.equal(a, expected)
    assert hooks(net) == 0


def test_only_what_would_be_overwritten_is_copied() -> None:
    """What a tap keeps of a layer for itself is not overwritten either; layers that nobody asked for are."""
    net, x = make_net(2, inplace=True), sample(2)
    addresses: dict[str, int] = {}
    for name in ("0", "1"):
        net[int(name)].register_forward_hook(lambda _m, _x, out, name=name: addresses.update({name: out.data_ptr()}))
    kept: list[Tensor] = []
    activations(net, x, ["0", "2"], lambda _, a: kept.append(a) or a.detach())  # type: ignore[func-returns-value]
    assert torch.equal(kept[0], make_net(2)[0](x)) and addresses["0"] != addresses["1"]
    activations(net, x, ["1", "2"])
    assert addresses["0"] == addresses["1"]


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_gradients_reach_the_sample(spatial_dims: int) -> None:
    net, x = make_net(spatial_dims, inplace=True), sample(spatial_dims).requires_grad_()
    activations(net, x, ["1"])["1"].sum().backward()
    expected = torch.autograd.grad(make_net(spatial_dims)[:2](x).sum(), x)[0]
    assert x.grad is not None and torch.equal(x.grad, expected)


def test_the_pass_goes_no_deeper_than_asked() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU(), Failing())
    x = torch.ones(1, 1, 4)
    assert set(activations(net, x, ["1", "0"])) == {"0", "1"}
    with pytest.raises(RuntimeError, match="too deep"):
        activations(net, x, ["0", "2"])
    assert hooks(net) == 0
    assert activations(nn.Sequential(Failing()), x, []) == {}  # nothing asked, nothing run


def test_a_net_that_swallows_errors_is_stopped_too() -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.ReLU(), Failing()

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.first(x)
            except Exception:
                x = x + 1
            return self.second(x)

    assert torch.equal(activations(Careless(), torch.ones(1, 1, 2), ["first"])["first"], torch.ones(1, 1, 2))


def test_each_use_of_a_reused_module_has_a_name() -> None:
    net, x = Reused(), torch.randn(1, 2, 5, 5)
    got = activations(net, x, ["relu#3", "relu", "conv#2"])
    once = net.relu(net.conv(x))
    twice = net.relu(net.conv(once))
    assert torch.equal(got["relu"], once)
    assert torch.equal(got["conv#2"], net.conv(once))
    assert torch.equal(got["relu#3"], net.relu(net.conv(twice)))
    assert list(layer_shapes(net, x)) == ["conv", "relu", "conv#2", "relu#2", "conv#3", "relu#3", ""]


def test_listening_has_the_same_names_in_every_pass() -> None:
    net = Reused()
    layers = ["relu", "relu#2", "conv#3", ""]
    with listening(net, layers) as seen:
        for seed in range(2):
            x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
            out = net(x)
            expected = activations(net, x, layers)
            assert set(seen) == set(layers) and all(torch.equal(seen[name], expected[name]) for name in layers)
            assert torch.equal(out, expected[""])
        copy.deepcopy(net)(x + 1)  # such as a running mean of the weights: it is another net
        assert all(torch.equal(seen[name], expected[name]) for name in layers)
    assert hooks(net) == 0


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_what_is_listened_to_is_not_overwritten_and_gradients_reach_it(spatial_dims: int) -> None:
    x = sample(spatial_dims).requires_grad_()
    slopes = []
    for inplace in (False, True):
        net = make_net(spatial_dims, inplace=inplace)
        with listening(net, ["0", "3.0"]) as seen:
            y = net(x).square().sum()
        slopes.append(torch.autograd.grad(y, [seen["0"], seen["3.0"], x]))
        assert torch.equal(seen["0"], net[0](x)) and (seen["0"] < 0).any()
    assert all(torch.equal(one, two) for one, two in zip(*slopes, strict=True))


def test_listening_to_what_is_no_tensor_or_no_layer() -> None:
    net = nn.Sequential(nn.LSTM(3, 2))
    with pytest.raises(InvalidOption, match="tuple"), listening(net, ["0"]):
        net(torch.randn(1, 4, 3))
    with pytest.raises(UnknownName, match="did you mean '0'"), listening(net, ["00"]):
        pass
    assert hooks(net) == 0


def test_a_layer_under_two_names() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Identity())
    net.add_module("again", net[0])
    got = activations(net, torch.ones(1, 1, 3), ["0", "again", "again#2"])
    assert torch.equal(got["0"], got["again"])


def test_the_net_itself_and_a_whole_tower() -> None:
    net = Tower(Architecture(spatial_dims=1, size=32, in_channels=2, widths=(4, 8), blocks=(1, 1))).eval()
    x = torch.randn(3, 2, 32)
    got = activations(net, x, ["", "stages.1"])
    assert torch.equal(got[""], net(x)) and got["stages.1"].shape == (3, 8, 4)
    assert layer_shapes(net, x)["code"] == (3, 128)


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("30", "3.0"), ("features.3.1", "3.1"), ("1x#2", "1"), ("3.0#0", "3.0")]
)
def test_a_typo_gets_the_nearest_name(wrong: str, nearest: str) -> None:
    net = make_net(2)
    with pytest.raises(UnknownName, match=f"did you mean '{nearest}'"):
        activations(net, sample(2), ["0", wrong])
    assert hooks(net) == 0


def test_a_layer_that_is_not_reached_is_named() -> None:
    net, x = Reused(), torch.randn(1, 2, 5, 5)
    for name in ("idle", "relu#4"):
        with pytest.raises(UnknownName, match=name):
            activations(net, x, ["conv", name])
    assert hooks(net) == 0
    with pytest.raises(UnknownName, match="no layer called 'conv'"):
        activations(nn.ReLU(), x, ["conv"])


def test_a_string_and_a_tuple_are_no_layers() -> None:
    with pytest.raises(InvalidOption, match="list"):
        activations(make_net(2), sample(2), "0")
    with pytest.raises(InvalidOption, match="tuple"):
        activations(nn.Sequential(nn.LSTM(3, 2)), torch.randn(1, 4, 3), ["0"])


def test_overwriting_by_hand_is_noticed() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv1d(1, 1, 1), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu_(self.conv(x)))

    net, x = Overwrites(), torch.randn(1, 1, 4)
    with pytest.raises(InvalidOption, match="overwrites"):
        activations(net, x, ["conv", "last"])
    assert activations(net, x, ["conv"])["conv"].shape == x.shape  # stopped before
    with torch.inference_mode():  # no version counters there: always copied
        kept = activations(net, x, ["conv", "last"])
        assert torch.equal(kept["conv"], net.conv(x))


def test_mode_and_other_hooks_stay() -> None:
    net = make_net(2).train()
    seen = []
    net[0].register_forward_hook(lambda *_: seen.append(1))
    activations(net, sample(2), ["2"])
    assert net.training and len(seen) == 1 and hooks(net) == 1


def test_threads_that_look_into_one_net_do_not_see_each_other() -> None:
    """One pass halts in the middle, while another thread's runs through."""
    net, xs = make_net(2), [sample(2), sample(2) + 1]
    names = list(layer_shapes(net, xs[0]))
    wanted = [activations(net, x, names) for x in xs]
    inside, other = threading.Event(), {}

    def halt(name: str, a: Tensor) -> Tensor:
        if name == names[1]:
            inside.set()
            done.wait(10)
        return a

    def first() -> None:
        other.update(activations(net, xs[1], names, halt))

    done, thread = threading.Event(), threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    mine = activations(net, xs[0], names)
    done.set()
    thread.join()
    for found, expected in ((mine, wanted[0]), (other, wanted[1])):
        assert all(torch.equal(found[name], expected[name]) for name in names)
    assert hooks(net) == 0


def test_a_pass_is_not_watched_while_another_thread_keeps_its_own() -> None:
    """What overwrites is given copies of what its own pass keeps: it does not look through what grows elsewhere."""
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3)), torch.rand(1, 3, 9, 9)
    seen: list[int] = []

    def through() -> None:
        given = net[0](x).detach()
        seen.append(given.data_ptr())
        seen.append(net[1](given).data_ptr())

    def halt(name: str, a: Tensor) -> Tensor:
        thread = threading.Thread(target=through)
        thread.start()
        thread.join()
        return a

    kept = activations(net, x, ["0", "1", "2"], halt)
    assert list(kept) == ["0", "1", "2"] and len(seen) == 6
    assert seen[::2] == seen[1::2]  # overwritten in place, as the module does
