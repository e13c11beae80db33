"""Encoders of faces as torch nets from crops to codes, for the methods that ask a net many times or for its slopes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets import identity
from ..nets.entries import Preprocessing
from ..recognition.encoder import FaceEncoder
from .comparing import compare_samples
from .comparison import Comparison
from .face_shares import LATE, weights_of


class GradientNet(nn.Module):
    """Aligned crops (b, 3, size, size), 0...255, to the codes that the encoder gives them, with gradients. Where it
    also looks at the mirror image, `maps` holds both, turned back, so that a position means the same place of a face.
    """

    def __init__(self, tower: identity.Tower, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.first, self.last = tower.stages[:-LATE], tower.stages[-LATE:]
        self.tower, self.preprocessing, self.maps = tower, preprocessing, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.preprocessing.mean) / self.preprocessing.scale
        if self.preprocessing.input_order == "bgr":
            x = x.flip(1)
        if not self.preprocessing.mirror:
            return self._code(self.maps(self.first(x)))
        maps = self.maps(torch.cat([self.first(x), self.first(x.flip(-1)).flip(-1)], 1))
        as_seen, mirrored = maps.chunk(2, 1)
        return F.normalize(self._code(as_seen) + self._code(mirrored.flip(-1)))

    def _code(self, maps: Tensor) -> Tensor:
        return self.tower.head(self.last(maps))


class OnnxNet(nn.Module):
    """The same through the encoder's own engine, without gradients."""

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        crops = x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return torch.from_numpy(self.encoder.encode_crops(crops.numpy()))


def gradient_net(encoder: FaceEncoder) -> GradientNet:
    """The net behind an encoder of the catalogue. Raises InvalidOption where there is an ONNX file only."""
    return GradientNet(identity.load(weights_of(encoder)), encoder.preprocessing).eval()


@torch.inference_mode(False)  # gradients are needed, whatever is switched off around it
def compare_crops(encoder: FaceEncoder, method: str, *samples: np.ndarray) -> Comparison:
    """`compare_samples` for two or three crops (size, size, 3) uint8 or, but for the first, codes (d,)."""
    net = OnnxNet(encoder) if method == "occlusion" else gradient_net(encoder)
    a, b, *against = (_sample(one) for one in samples)
    return compare_samples(net, a, b, against=against[0] if against else None, method=method, layer="maps")


def _sample(one: np.ndarray) -> Tensor:
    x = torch.from_numpy(one.copy())
    return x if x.ndim == 1 else x.permute(2, 0, 1)[None].float()
