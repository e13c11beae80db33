"""A slim net that stands in for a large one at the beginning of a descent, when a rough idea of J is enough.

Each layer of the slim net has a linear map M to the large net's layer of the same name, the best one for the samples at
hand (`likeness train perceptual` makes slim nets that can be mapped so). J measured in mapped activations M a is close
to J measured in the large net, and falls along with it until what the maps leave unexplained counts: some dozens of
evaluations, at a tenth of the price. Differences of activations and of Gram matrices depend on M only through M'M:
`|M a|^2 = a'M'M a` and `|M D M'|^2 = tr(M'M D M'M D)`. So any L with L'L = M'M does as well, and one as narrow as the
slim layer costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.activations import activations
from ..nets.layers import conv
from ..nets.perceptual import Vgg, block_of
from ..nets.tiles import walk
from .descent import Descent
from .objective import Convention, Style, objective
from .tiling import within_range

RIDGE = 1e-4  # of the mean square of the slim activations: keeps channels that say the same from cancelling each other
EVALUATIONS = 30  # after which J of the large net falls no further
SMALLER = 5  # times fewer weights, from which on it pays


class StandIn(nn.Module):
    """`slim`, with a 1x1 convolution for each layer that is looked at, called as the layer. maps: layer -> M (large
    channels, slim channels + 1); the last column is added. widths: channels of a head -> channels it stands for."""

    def __init__(self, slim: Vgg, maps: dict[str, Tensor]) -> None:
        super().__init__()
        self.slim, self.architecture, self.layers = slim, slim.architecture, list(maps)
        self.widths = {matrix.shape[1]: len(matrix) for matrix in maps.values()}
        for layer, matrix in maps.items():
            values, vectors = torch.linalg.eigh(matrix.T @ matrix)
            root = (values.clamp_min(0).sqrt()[:, None] * vectors.T).float()  # L
            head = conv(self.architecture.spatial_dims, len(root) - 1, len(root), 1)
            head.load_state_dict({"weight": root[:, :-1].reshape(head.weight.shape), "bias": root[:, -1]})
            self.add_module(layer, head)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found = activations(self.slim, x, self.layers)
        return [self.get_submodule(layer)(found[layer]) for layer in self.layers][-1]


@torch.no_grad()
def stand_in(slim: Vgg, large: Vgg, samples: Sequence[Tensor], layers: Sequence[str], tile: int | None) -> StandIn:
    """`slim` with the maps that explain `large` best on `samples` (each (1, c, *spatial)), by least squares over all
    positions: `M = <t a'> (<a a'> + r I)^-1`, with a the slim activations and a 1, t the large net's."""
    own: dict[str, Tensor] = {}
    cross: dict[str, Tensor] = {}
    for sample in samples:
        pairs = zip(*(walk(net, sample, layers, tile) for net in (large, slim)), strict=True)
        for (_, wanted), (_, found) in pairs:
            for layer in layers:
                t, a = (part[layer].flatten(2)[0] for part in (wanted, found))
                a = torch.cat([a, torch.ones_like(a[:1])])
                own[layer] = own.get(layer, 0) + (a @ a.T).double()
                cross[layer] = cross.get(layer, 0) + (t @ a.T).double()
            del t, a
    maps = {}
    for layer in layers:
        ridge = RIDGE * own[layer].diagonal().mean() * torch.eye(len(own[layer]), dtype=torch.float64)
        maps[layer] = torch.linalg.solve(own[layer] + ridge, cross[layer].T).T
    return StandIn(slim, maps)


def warmed(
    slim: Vgg,
    large: Vgg,
    downhill: Descent,
    content: Tensor,
    styles: Sequence[Style],
    *,
    tile: int | None,
    low: bool,
    on_step: Callable[[Descent], None],
    **cost: Any,
) -> Tensor:
    """The best sample that `downhill` finds in J as `slim` standing in for `large` sees it, at the size of `content`.

    downhill: a walk that has not begun. Whoever makes it says how many pairs it keeps, and should hold the start
    nowhere else: what the warm-up takes is planned (`estimate.warm_up_memory`).
    tile, low: see `style.tiling`. cost: options of `objective`; its statistic must be "gram".
    """
    layers = list(dict.fromkeys([*cost["content_layers"], *cost["style_layers"]]))
    net = stand_in(slim, large, [content, *(style.sample for style in styles)], layers, tile)
    J = objective(net, content, styles, tile=tile, **cost)  # type: ignore[arg-type]  # it has what is used of a Vgg
    factors = J.convention  # they are those of the large net's channels
    J = replace(
        J,
        convention=Convention(
            lambda channels, positions: factors.content(net.widths[channels], positions),
            lambda channels: factors.style(net.widths[channels]),
        ),
    )
    downhill.run(lambda x: within_range(J, x, tile=tile, low=low), EVALUATIONS, on_step=on_step)
    return downhill.best.to(downhill.x.dtype)


def can_stand_in(slim: Vgg, large: Vgg, layers: Sequence[str]) -> bool:
    """Whether `slim` has all the layers, takes the same samples, and is so much smaller that it pays."""
    ours, theirs = (sum(p.numel() for p in net.parameters()) for net in (slim, large))
    names = dict(slim.named_children())
    if not all(layer in names for layer in layers):
        return False
    a, b = slim.architecture, large.architecture
    same = (a.spatial_dims, a.in_channels) == (b.spatial_dims, b.in_channels)
    widths = {(a.widths[block_of(layer) - 1], b.widths[block_of(layer) - 1]) for layer in layers}
    told_apart = len({width for width, _ in widths}) == len(widths)  # `StandIn.widths`
    return same and told_apart and theirs > SMALLER * ours
