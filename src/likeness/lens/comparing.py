"""Which parts of two samples bring their unit codes together or apart, over 1, 2 or 3 dimensions.

The score of a pair is `<f(a), f(b)> = 1 - d/2`. With the code of the other sample fixed it is one number per sample,
which `lens.attribute` can be asked about, and which is linear in that code: what speaks for a match with b and against
one with n is the same question with `f(b) - f(n)` in the place of `f(b)`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption
from ..nets.activations import layer_shapes
from .attribute import Target, attribute, weighted
from .comparison import Comparison, Share, check_method, compared
from .differences import differences


def score_with(code: Tensor) -> Target:
    """The score of samples with something whose code is `code` (d,): `<f(x), code>`, f of unit length."""

    def target(net: nn.Module, x: Tensor) -> Tensor:
        return _unit(net(x)) @ code

    return target


@torch.inference_mode(False)  # gradients are needed, whatever is switched off around it
def compare_samples(
    net: nn.Module,
    a: Tensor,
    b: Tensor,
    *,
    against: Tensor | None = None,
    method: str = "linear",
    layer: str | None = None,
    baseline: float | None = None,
    window: int | None = None,
    stride: int | None = None,
) -> Comparison:
    """What of the samples a and b brings their codes together, and what drives them apart.

    net: samples (b, c, *spatial) to codes (b, d), brought to length 1 here if they are not; in eval mode. a: one sample
    (1, c, *spatial). b: another, or a code (d,) alone, such as a template's. against: a third, or its code: the map of
    a then shows what speaks for b and against it.
    method:
        linear: what each position of `layer` adds, from a blank sample to this one (`lens.differences`):
            `sum of map + rest = score`, `rest` being the score of the blank sample under the norm of this one's code.
            Exact where what follows the layer is affine or of the functions that `lens.differences` names (element-wise
            ones of one argument, the norm); `explained` tells.
        grad-cam: `sum_k w_k A_k[p]`, w_k the mean over positions of `d score / dA_k` (Selvaraju 2017, eq. 1 and 2,
            without the ReLU, as what drives apart is to be seen too).
        occlusion: how much the score falls when a cube of `window` positions is covered, moved by `stride`.
    layer: default: the last one with more than one position. baseline: what is blank, or covers; default: the mean of
    each channel of the sample. window, stride: as in `attribute`.

    Raises UnknownName for a method or layer there is none of, InvalidOption for samples that cannot be.
    """
    check_method(method)
    if a.ndim < 3 or len(a) != 1:
        raise InvalidOption(f"a is one sample (1, c, *spatial), not {tuple(a.shape)}")
    others = [b] if against is None else [b, against]
    with torch.no_grad():
        code_a = _unit(net(a))[0]
    codes = [code_a, *(_code(net, x, a, code_a) for x in others)]
    if method == "occlusion":
        layer = None
    elif layer is None:
        layer = last_map(net, a)

    def share(x: Tensor, other: np.ndarray) -> Share:
        blank = x.mean(tuple(range(2, x.ndim)), keepdim=True).expand_as(x).clone()
        if baseline is not None:
            blank.fill_(baseline)
        target = score_with(torch.from_numpy(other).to(code_a))
        if method == "occlusion":
            cover = attribute(net, x, target, method=method, baseline=blank, window=window, stride=stride)
            return Share(cover.map[0, 0].numpy(), float(cover.value))
        assert layer is not None
        if method == "grad-cam":
            y, cam = weighted(net, x, target, layer)
            return Share(cam[0, 0].numpy(), float(y))
        shares, value, rest = differences(net, x, blank, target, layer)
        return Share(shares.sum(0).numpy(), value, rest)

    samples = [x if x.ndim > 1 else None for x in (a, *others)]
    return compared(method, layer, samples, [code.numpy() for code in codes], share)


def last_map(net: nn.Module, x: Tensor, until: str | None = None) -> str:
    """The deepest layer, up to the one called `until`, in which samples like x still have more than one position."""
    last = None
    for name, shape in layer_shapes(net, x).items():
        if name and len(shape) == x.ndim and max(shape[2:]) > 1:
            last = name
        if name == until:
            break
    if last is None:
        raise InvalidOption("no layer of this net has maps with positions; occlusion needs none")
    return last


def _code(net: nn.Module, x: Tensor, sample: Tensor, code: Tensor) -> Tensor:
    """The unit code (d,) of the other one, which is a sample or a code like these."""
    if x.ndim == 1:
        if x.shape != code.shape:
            raise InvalidOption(f"a code of this net has {len(code)} numbers, not {len(x)}")
        return F.normalize(x.to(code), dim=0)
    if x.shape[:2] != sample.shape[:2] or x.ndim != sample.ndim:
        raise InvalidOption(
            f"the other one is a sample like {tuple(sample.shape)} or a code (d,), not {tuple(x.shape)}"
        )
    with torch.no_grad():
        return _unit(net(x))[0]


def _unit(codes: Tensor) -> Tensor:
    if codes.ndim != 2:
        raise InvalidOption(f"the net gives {tuple(codes.shape)}; codes are (b, d)")
    return F.normalize(codes)
