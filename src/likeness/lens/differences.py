"""How the difference between two samples' outputs is made up of the differences between their activations.

Back through the net go not slopes but shares: at an element-wise function f the slope is replaced by
`(f(x) - f(x0)) / (x - x0)`, x0 being the blank sample's (DeepLIFT, Shrikumar 2017, section 3.5.2, the Rescale rule); a
norm that divides counts as the constant that it is for the sample. What is affine needs no rule (section 3.5.1). So the
shares of a layer add up to the difference of the outputs, in one pass there and back, however many such functions lie
between. As in `lens.attribute`, functions are replaced while the net runs, and no hook is left on a module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InvalidOption
from ..nets.activations import listening
from .attribute import IN_PLACE, RELUS, Target

_ELEMENTWISE = RELUS | {
    torch.prelu, F.prelu, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.relu6,
    F.hardtanh, F.sigmoid, F.tanh, torch.sigmoid, torch.tanh, torch.exp, torch.abs, torch.square, torch.sqrt,
    Tensor.sigmoid, Tensor.tanh, Tensor.exp, Tensor.abs, Tensor.square, Tensor.sqrt, Tensor.prelu,
}  # fmt: skip
_NORMS = {torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm}


def differences(net: nn.Module, x: Tensor, blank: Tensor, target: Target, layer: str) -> tuple[Tensor, float, float]:
    """What each activation of `layer` adds to the target: shares (c, *positions), the target of x, and that of `blank`
    under the norms of x; `target(x) = sum of shares + target(blank)` where the rules above are all that is needed.

    x, blank: one sample each (1, c, *spatial). Raises InvalidOption where the target does not depend on the layer.
    """
    with torch.enable_grad(), _Shares(), listening(net, [layer]) as seen:
        y = target(net, torch.cat([blank, x]).requires_grad_())
        a = seen.get(layer)
        if a is None or a.ndim != x.ndim or len(a) != 2:
            raise InvalidOption(f"the target does not pass through maps of layer {layer!r}")
        (slopes,) = torch.autograd.grad(y[1], a, allow_unused=True)
    if slopes is None:
        raise InvalidOption(f"the target does not depend on layer {layer!r}")
    rest, value = y.detach().tolist()
    return (a[1] - a[0]).detach() * slopes[1], value, rest


class _Shares(TorchFunctionMode):
    """Tensors of two samples, the blank one first, go by the rules; others (weights) as always."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor) or not x.ndim or len(x) != 2:
            return func(*args, **kwargs)
        if func is F.normalize:
            out = func(*args, **kwargs)
            scale = out[1:].detach() / x[1:].detach()
            return x * torch.where(x[1:] == 0, 0, scale)
        if func in _NORMS:
            out = func(*args, **kwargs)
            return out[1:].detach().expand_as(out) if out.ndim else out
        if func not in _ELEMENTWISE:
            return func(*args, **kwargs)
        rest = {name: value for name, value in kwargs.items() if name != "input"}
        shares = _Rescaled.apply(x.clone(), lambda x: func(x, *args[1:], **rest))
        in_place = func in IN_PLACE or kwargs.get("inplace") or any(value is True for value in args[1:])
        return x.copy_(shares) if in_place else shares


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
