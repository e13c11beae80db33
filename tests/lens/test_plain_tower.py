"""The tower in NumPy against the one in torch, there and back, in 1, 2 and 3 dimensions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likeness.errors import WeightsError
from likeness.lens.differences import differences
from likeness.lens.plain_tower import Convolution, from_arrays, read
from likeness.nets import identity
from likeness.nets.identity import Architecture, Tower

SIZE = {1: 39, 2: 19, 3: 11}  # odd: the last positions of some maps are seen by nobody


def drawn(dims: int) -> Tower:
    """With blocks that are not the identity, and the batch norms' statistics those of samples."""
    torch.manual_seed(dims)
    shape = Architecture(dims, 2, SIZE[dims], stem=2, widths=(4, 6, 5), blocks=(1, 2, 1), code_length=7)
    net = Tower(shape).double().train()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.3, 0.6)
    with torch.no_grad():
        net(torch.randn(16, 2, *[SIZE[dims]] * dims, dtype=torch.float64))
    return net.eval()


@pytest.mark.parametrize("late", (0, 1, 2, 3))
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_codes_and_shares_are_those_of_torch(dims: int, late: int) -> None:
    net = drawn(dims)
    plain = from_arrays({name: value.numpy() for name, value in net.state_dict().items()})
    pair = torch.randn(2, 2, *[SIZE[dims]] * dims, dtype=torch.float64)
    maps = plain.maps(pair.numpy(), late)
    codes, back = plain.codes(maps, late)
    with torch.no_grad():
        expected = net.code(net.norm(net.whole(net.stages(pair))).flatten(1)).numpy()
    assert np.abs(codes - expected).max() < 1e-12
    if late == 3:
        return  # the maps are the sample itself, which is no layer
    code = torch.linspace(-1, 1, 7, dtype=torch.float64)

    def score(net: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(net, Tower)
        return net.code(net.norm(net.whole(net.stages(x))).flatten(1)) @ code

    shares, value, rest = differences(net, pair[1:], pair[:1], score, f"stages.{2 - late}")
    found = (maps[1] - maps[0]) * back(code.numpy())
    assert np.abs(found - shares.numpy()).max() < 1e-12 < np.abs(found).std()
    assert found.sum() + rest == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("stride", "padding"), ((1, 0), (1, 1), (2, 0), (3, 1)))
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_way_back_of_a_convolution_is_its_transpose(dims: int, stride: int, padding: int) -> None:
    """<y, Ax> = <A'y, x>, and A is torch's."""
    random = np.random.default_rng(dims)
    size = (8, 7, 9)[:dims]
    one = Convolution(random.normal(size=(4, 3, *(2, 3, 2)[:dims])), np.zeros(4), stride, padding)
    x = random.normal(size=(2, 3, *size))
    y = one(x)
    function = (torch.conv1d, torch.conv2d, torch.conv3d)[dims - 1]
    weight = torch.from_numpy(one.kernel)
    expected = function(torch.from_numpy(x), weight, stride=stride, padding=padding)  # type: ignore[operator]
    assert np.abs(y - expected.numpy()).max() < 1e-12
    seed = random.normal(size=y.shape)
    assert (seed * y).sum() == pytest.approx((one.back(seed, size) * x).sum(), abs=1e-9)


def test_where_nothing_changed_the_slope_is_taken() -> None:
    net = drawn(2)
    plain = from_arrays({name: value.numpy() for name, value in net.state_dict().items()})
    maps = plain.maps(np.random.default_rng(0).normal(size=(1, 2, 19, 19)), 2)
    _, back = plain.codes(np.concatenate([maps, maps]), 2)
    leaf = torch.from_numpy(maps).requires_grad_()
    code = torch.linspace(-1, 1, 7, dtype=torch.float64)
    (net.code(net.norm(net.whole(net.stages[1:](leaf))).flatten(1)) @ code).sum().backward()
    assert leaf.grad is not None and np.abs(back(code.numpy()) - leaf.grad[0].numpy()).max() < 1e-12


def test_files(tmp_path: Path) -> None:
    net = Tower(Architecture(size=16, stem=2, widths=(4, 6), blocks=(1, 1)))
    identity.save(net, tmp_path / "net.safetensors", half=True)
    x = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    codes, _ = read(tmp_path / "net.safetensors").codes(x, 2)
    with torch.no_grad():
        expected = identity.load(tmp_path / "net.safetensors")(torch.from_numpy(x)).numpy()
    assert np.abs(codes / np.linalg.norm(codes) - expected).max() < 1e-5
    with pytest.raises(WeightsError, match="no such file"):
        read(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:-50])
    with pytest.raises(WeightsError, match="cannot be read"):
        read(tmp_path / "cut.safetensors")
    torch_net = nn.Linear(2, 2)
    from likeness.nets import weights_file

    weights_file.save(torch_net, tmp_path / "other.safetensors", {})
    with pytest.raises(WeightsError, match="does not hold the weights of an encoder"):
        read(tmp_path / "other.safetensors")
