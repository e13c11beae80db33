"""Any style in one pass: encoder, AdaIN, decoder (Huang & Belongie 2017), over 1, 2 or 3 dimensions.

The encoder's deepest activations of the content get, channel by channel, the mean and deviation of the style's; a
decoder, trained to invert the encoder (`style.adain_training`), turns them into a sample.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from ..nets import weights_file
from ..nets.layers import reflected
from ..nets.mirrored import mirrored_conv
from ..nets.perceptual import Architecture, Vgg, smallest, stride
from .statistics import deviations

KIND = "likeness.adain"


def statistics(a: Tensor) -> Tensor:
    """Mean and deviation over positions: (b, c, *spatial) -> (2, b, c)."""
    a = a.flatten(2)
    return deviations(torch.stack([a.mean(2), a.square().mean(2)]))


def adain(content: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """`sigma(y) (x - mu(x)) / sigma(x) + mu(y)` (eq. 8): activations x (b, c, *spatial) brought to the mean and
    deviation (b, c) of y."""
    shape = (*mean.shape, *[1] * (content.ndim - 2))
    own_mean, own_deviation = statistics(content)
    scale = (deviation / own_deviation).view(shape)
    return (content - own_mean.view(shape)) * scale + mean.view(shape)


@dataclass(frozen=True)
class DecoderArchitecture:
    """widths: channels of each block from the finest to the coarsest, as the encoder's blocks are numbered; depths:
    convolutions of each. After each block but the last the size doubles (nearest neighbour, then convolution: no
    checkerboard); the last convolution has the sample's channels."""

    spatial_dims: int = 2
    in_channels: int = 128
    out_channels: int = 3
    widths: tuple[int, ...] = (24, 48, 96, 96)
    depths: tuple[int, ...] = (2, 2, 2, 1)


class Decoder(nn.Sequential):
    """Activations (b, in_channels, *spatial) -> samples (b, out_channels, *spatial * 2^(blocks - 1)), about 0...1."""

    def __init__(self, architecture: DecoderArchitecture) -> None:
        a = architecture
        if len(a.widths) != len(a.depths) or min(*a.depths, *a.widths) < 1:
            raise InvalidOption(f"widths {a.widths} and depths {a.depths} must name the same blocks")
        layers: list[nn.Module] = []
        channels = a.in_channels
        for block in reversed(range(len(a.widths))):
            for number in range(a.depths[block]):
                last = block == 0 and number == a.depths[0] - 1
                width = a.out_channels if last else a.widths[block]
                layer = mirrored_conv(a.spatial_dims, channels, width)
                layers += [layer] if last else [layer, nn.ReLU()]
                channels = width
            if block:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        super().__init__(*layers)
        self.architecture = a


class Adain(nn.Module):
    """`encoder` and the `decoder` that belongs to it."""

    def __init__(self, encoder: Vgg, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        deepest = [name for name, _ in encoder.named_children()][-1]
        self.step = stride(deepest)
        self.smallest = smallest(encoder.architecture, deepest)

    @property
    def bytes_per_position(self) -> int:
        """That `stylize` needs at most, in float32: what is doubled for the finest convolution, again as the
        convolution reads it, what it gives, and the sample some times. (Measured with a net of 32/64/128 channels, 724
        counted: 724 for 2048 x 1536, and 30 to 70 MB more for any size.)"""
        widths = self.decoder.architecture.widths
        return 4 * (2 * max(widths[:2]) + widths[0] + 7 * self.decoder.architecture.out_channels)

    def statistics(self, styles: Sequence[Tensor]) -> Tensor:
        """Mean and deviation per channel of each style sample (1, c, *spatial): (2, styles, channels). Raises
        InvalidOption where one is too small."""
        return torch.cat([statistics(self.encoder(self._checked(one, "a style"))) for one in styles], 1)

    def forward(self, content: Tensor, mean: Tensor, deviation: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Content (b, c, *spatial), each side a multiple of `step`, to a sample of the same size with a style's mean
        and deviation (b, channels). `strength` (eq. 14): 0 gives the content back (as the decoder sees it), 1 all of
        the style."""
        a = self.encoder(content)
        return self.decoder(torch.lerp(a, adain(a, mean, deviation), torch.as_tensor(strength, dtype=a.dtype)))

    @torch.no_grad()
    def stylize(
        self, content: Tensor, styles: Sequence[Tensor], *, strength: float = 1.0, blend: Sequence[float] = ()
    ) -> Tensor:
        """Paint `content` (1, c, *spatial), values 0...1, of any size, like `styles` (each (1, c, *spatial')).

        strength: 0 the content, 1 the style. blend: weight of each style (default: all alike); statistics are mixed,
        which is the same as mixing the stylised activations (eq. 15), for these are linear in them.
        Raises InvalidOption where a sample is too small or a weight cannot be.
        """
        if not 0 <= strength <= 1:
            raise InvalidOption(f"strength is {strength}; it must be from 0 (the content) to 1 (the style)")
        weights = torch.tensor(blend or [1.0] * len(styles), dtype=content.dtype)
        if not styles or len(weights) != len(styles):
            raise InvalidOption(f"blend has {len(weights)} weights for {len(styles)} styles; it needs one for each")
        if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise InvalidOption(f"blend is {list(blend)}; it needs weights of at least 0, not all of them 0")
        self._checked(content, "the content")
        mean, deviation = torch.einsum("tsc,s->tc", self.statistics(styles), weights / weights.sum())
        return self.painted(content, mean[None], deviation[None], strength)

    def painted(self, content: Tensor, mean: Tensor, deviation: Tensor, strength: Tensor | float) -> Tensor:
        """As `forward`, for content of any size, and within 0...1."""
        made = self(self._whole(content), mean, deviation, strength)
        for axis, n in enumerate(content.shape[2:], 2):
            made = made.narrow(axis, 0, n)
        return made.clamp(0, 1)

    def _whole(self, x: Tensor) -> Tensor:
        """x reflected at its far ends until each side is a multiple of `step`."""
        for axis, n in enumerate(x.shape[2:], 2):
            x = x.index_select(axis, reflected(torch.arange(n + -n % self.step), n))
        return x

    def _checked(self, x: Tensor, what: str) -> Tensor:
        a = self.encoder.architecture
        if x.ndim != 2 + a.spatial_dims or x.shape[1] != a.in_channels or min(x.shape[2:]) < self.smallest:
            raise InvalidOption(
                f"{what} has shape {tuple(x.shape)}; this net takes (1, {a.in_channels}, ...) with {a.spatial_dims} "
                f"spatial dimensions of at least {self.smallest}"
            )
        return x


def untrained(encoder: Vgg, *, widths: Sequence[int] = DecoderArchitecture.widths) -> Adain:
    """A net with a new decoder for `encoder`: blocks as many as the encoder's."""
    a = encoder.architecture
    depths = (2,) * (len(a.widths) - 1) + (1,)
    if len(widths) != len(depths):
        raise InvalidOption(f"widths {tuple(widths)} must name {len(depths)} blocks, as the encoder has")
    return Adain(
        encoder, Decoder(DecoderArchitecture(a.spatial_dims, a.widths[-1], a.in_channels, tuple(widths), depths))
    )


def save(net: Adain, path: str | os.PathLike[str]) -> None:
    """Write encoder, decoder and what they are made of as one safetensors file; kernels as float16."""
    parts = {"encoder": asdict(net.encoder.architecture), "decoder": asdict(net.decoder.architecture)}
    weights_file.save(net, path, {KIND: json.dumps(parts)})


def load(path: str | os.PathLike[str]) -> Adain:
    """Read a net written by `save`. Raises WeightsError where the file is not such a net or is damaged."""
    tensors, metadata = weights_file.read(path)
    if KIND not in metadata:
        raise WeightsError(f"{path} is not an AdaIN net of likeness (its metadata has no {KIND!r})")
    with weights_file.damaged(path):
        parts = json.loads(metadata[KIND])
        encoder = Vgg(Architecture(**weights_file.fields(json.dumps(parts["encoder"]))))
        decoder = Decoder(DecoderArchitecture(**weights_file.fields(json.dumps(parts["decoder"]))))
        net = Adain(encoder, decoder)
    return weights_file.fill(net, tensors, path).eval().requires_grad_(False)


class _OneStyle(nn.Module):
    """What an ONNX file holds: content and style of any size (b, c, *spatial), strength (b) -> the painted content."""

    def __init__(self, net: Adain) -> None:
        super().__init__()
        self.net = net

    def forward(self, content: Tensor, style: Tensor, strength: Tensor) -> Tensor:
        mean, deviation = statistics(self.net.encoder(style))
        return self.net.painted(content, mean, deviation, strength.view(-1, *[1] * (content.ndim - 1)))


def export(file: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the net in `file` as ONNX: inputs `image`, `style` (any sizes) and `strength` (one per picture), output
    `painted`; equal to torch's to 1e-4. What it wrote, as plain values."""
    from ..nets.export import export_onnx

    net = load(file)
    a = net.encoder.architecture
    shapes = [(1, a.in_channels, *sizes[: a.spatial_dims]) for sizes in ((45, 67, 27), (38, 35, 41))]
    more = {"style": shapes[1], "strength": (1,)}
    made = _OneStyle(net).eval()
    worst = export_onnx(
        made,
        onnx,
        example_shape=shapes[0],
        more_inputs=more,
        dynamic_spatial=True,
        output_names=("painted",),
        tolerance=1e-4,
    )
    sizes = [None] * a.spatial_dims
    described = {"image": [None, a.in_channels, *sizes], "style": [None, a.in_channels, *sizes], "strength": [None]}
    return {"output": str(onnx), "bytes": os.path.getsize(onnx), "input": described, "max_difference": worst}
