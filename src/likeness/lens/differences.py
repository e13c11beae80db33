"""How the difference between two samples' outputs is made up of the differences between their activations.

Back through the net go not slopes but shares: at an element-wise function f the slope is replaced by
`(f(x) - f(x0)) / (x - x0)`, x0 being the blank sample's (DeepLIFT, Shrikumar 2017, section 3.5.2, the Rescale rule); a
norm that divides counts as the constant that it is for the sample. What is affine needs no rule (section 3.5.1). So the
shares of a layer add up to the difference of the outputs, in one pass there and back, however many such functions lie
between. As in `lens.attribute`, functions are replaced while the net runs, and no hook is left on a module.

Covered are the functions of `ELEMENTWISE` (as modules, functions, methods, or in place) where one argument depends on
the sample, `F.normalize`, and division by `norm` and its like in torch and `torch.linalg`. All else goes back by its
slope, as if it were affine there: products and quotients of two things that depend on the sample (gates, attention,
softmax), max pooling, layer, group and instance normalisation. There the sum is off; `Share.explained` tells how far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InvalidOption
from ..nets.activations import listening
from .attribute import Target

#: Names of functions of torch, less the underscores that mark one in place, or an operator.
ELEMENTWISE = frozenset(
    "relu relu6 leaky_relu prelu elu selu celu gelu silu mish softplus softsign logsigmoid log_sigmoid hardswish "
    "hardsigmoid hardtanh hardshrink softshrink tanhshrink threshold sigmoid tanh exp expm1 log log1p abs square sqrt "
    "rsqrt reciprocal pow rpow clamp clamp_min clamp_max clip maximum minimum erf sin cos atan".split()
)
_NORMS = {torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm}


def differences(net: nn.Module, x: Tensor, blank: Tensor, target: Target, layer: str) -> tuple[Tensor, float, float]:
    """What each activation of `layer` adds to the target: shares (c, *positions), the target of x, and that of `blank`
    under the norms of x; `target(x) = sum of shares + target(blank)` where the rules above are all that is needed.

    x, blank: one sample each (1, c, *spatial). Raises InvalidOption where the target does not depend on the layer.
    """
    with torch.enable_grad(), _constant(net), _Shares(), listening(net, [layer]) as seen:
        y = target(net, torch.cat([blank, x]).requires_grad_())
        a = seen.get(layer)
        if a is None or a.ndim != x.ndim or len(a) != 2:
            raise InvalidOption(f"the target does not pass through maps of layer {layer!r}")
        (slopes,) = torch.autograd.grad(y[1], a, allow_unused=True)
    if slopes is None:
        raise InvalidOption(f"the target does not depend on layer {layer!r}")
    rest, value = y.detach().tolist()
    return (a[1] - a[0]).detach() * slopes[1], value, rest


@contextmanager
def _constant(net: nn.Module) -> Iterator[None]:
    """Weights without gradients, so that what has one descends from the samples."""
    free = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in free:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def _of_both(x: Any) -> bool:
    """Whether it holds something of the blank sample and of the other, in this order."""
    return isinstance(x, Tensor) and x.requires_grad and x.shape[:1] == (2,)


class _Shares(TorchFunctionMode):
    """What is computed from the two samples goes by the rules; all else (weights) as always."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        known = name.strip("_") in ELEMENTWISE
        if (known or func is F.normalize) and "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        places = [i for i, value in enumerate(args) if _of_both(value)]
        if func is F.normalize and places:
            return _normalized(*args, **kwargs)
        if func in _NORMS:
            out = func(*args, **kwargs)
            return out[1:].detach().expand_as(out) if _of_both(out) else out
        if not known or len(places) != 1:
            return func(*args, **kwargs)
        (at,) = places
        shares = _Rescaled.apply(args[at].clone(), lambda x: func(*args[:at], x, *args[at + 1 :], **kwargs))
        in_place = kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__"))
        return args[at].copy_(shares) if in_place else shares


def _normalized(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """`F.normalize` by the norm of the second sample."""
    return x / x[1:].detach().norm(p, dim, keepdim=True).clamp_min(eps)


class _Rescaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            y = function(leaf.clone())
            (slope,) = torch.autograd.grad(y.sum(), leaf)
        y = y.detach()
        change = x[1:] - x[:1]
        ctx.save_for_backward(torch.where(change.abs() < 1e-7, slope[1:], (y[1:] - y[:1]) / change))
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return slope * share, None
