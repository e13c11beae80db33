"""Our attributions against captum's, where both can: modules used once, functions that captum's hooks see."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.lens.attribute import attribute, output
from likeness.lens.differences import differences
from likeness.nets.layers import conv

captum = pytest.importorskip("captum.attr", reason="captum is not installed: pip install 'likeness[test]'")
SIZES = {1: (12,), 2: (9, 8), 3: (5, 4, 6)}
pytestmark = pytest.mark.filterwarnings("ignore")  # captum's, about its hooks


def net(dims: int) -> nn.Sequential:
    torch.manual_seed(dims)
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](5)
    norm.running_mean.normal_(0, 0.3)
    norm.running_var.uniform_(0.5, 2)
    return (
        nn.Sequential(
            conv(dims, 2, 4, 3, padding=1), nn.ReLU(), conv(dims, 4, 5, 3, padding=1), norm, nn.ReLU(),
            conv(dims, 5, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
        )
    )  # fmt: skip


def ready(dims: int) -> tuple[nn.Sequential, Tensor]:
    model = net(dims)
    x = torch.randn(2, 2, *SIZES[dims], generator=torch.Generator().manual_seed(5))
    model(x)  # the last layer learns its size
    return model.double().eval(), x.double()


REFERENCES: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
    "gradient": lambda net, x: captum.Saliency(net).attribute(x, target=1, abs=False),
    "guided-backprop": lambda net, x: captum.GuidedBackprop(net).attribute(x, target=1),
    "deconvnet": lambda net, x: captum.Deconvolution(net).attribute(x, target=1),
    "integrated-gradients": lambda net, x: captum.IntegratedGradients(net).attribute(
        x, target=1, n_steps=7, method="riemann_middle"
    ),
    "grad-cam": lambda net, x: F.interpolate(
        captum.LayerGradCam(net, net[4]).attribute(x, target=1, relu_attributions=True),
        x.shape[2:],
        mode={3: "linear", 4: "bilinear", 5: "trilinear"}[x.ndim],
    ),
}


@pytest.mark.parametrize("method", REFERENCES)
@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_same_map(dims: int, method: str) -> None:
    model, x = ready(dims)
    options: dict[str, Any] = {"steps": 7, "layer": "4"}
    ours = attribute(model, x, output(1), method=method, **options).map
    theirs = REFERENCES[method](model, x.clone().requires_grad_()).detach()
    assert ours.shape == theirs.shape and ours.abs().max() > 0
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_occlusion_by_windows_that_do_not_overlap(dims: int) -> None:
    """captum gives the whole fall to every channel and position of a window; where windows overlap it differs."""
    model, x = ready(dims)
    x = x[(..., *[slice(0, 4)] * dims)].repeat(1, 1, *[2] * dims) if dims < 3 else x[..., :4, :4, :4]
    model[-1] = nn.Linear(6 * int(torch.tensor([n - 2 for n in x.shape[2:]]).prod()), 3).double()
    ours = attribute(model, x, output(2), method="occlusion", window=2, stride=2, baseline=0.3).map
    theirs = captum.Occlusion(model).attribute(
        x, target=2, sliding_window_shapes=(2, *[2] * dims), strides=(2, *[2] * dims), baselines=0.3
    )
    assert (ours - theirs[:, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_shares_of_a_difference_are_deep_lift(dims: int) -> None:
    model, x = ready(dims)
    sample, blank = x[:1], x[1:]
    shares, _, _ = differences(model, sample, blank, output(1), "3")
    theirs = captum.LayerDeepLift(model, model[3]).attribute(sample, blank, target=1)
    assert shares.abs().max() > 0
    assert (shares - theirs[0]).abs().max() < 1e-6
