"""Pair heads: two codes in, the probability out that they are of the same subject. A logistic unit over
component-wise differences.
"""

from __future__ import annotations

import json
import os
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, WeightsError
from ..nets import weights_file

KIND = "likeness.pair-head"
Kind = Literal["absolute", "chi-square"]
KINDS = ("absolute", "chi-square")
EPSILON = 1e-6


def absolute_difference(a: Tensor, b: Tensor) -> Tensor:
    """`|a_k - b_k|` (m, d): what DeepFace's Siamese net weighs (Taigman 2014, section 4.2)."""
    return (a - b).abs()


def chi_square(a: Tensor, b: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """`(a_k - b_k)^2 / (a_k + b_k + epsilon)` (m, d) of non-negative codes (Taigman 2014, section 4.1).

    `epsilon` keeps the denominator above 0 where both components are 0 (the feature is then 0). Raises InvalidOption
    for negative components, for which the formula is no distance: pass codes through `non_negative` first.
    """
    if bool((a.detach() < 0).any()) or bool((b.detach() < 0).any()):
        raise InvalidOption(
            "chi-square needs codes without negative components; make them so with heads.non_negative(codes)"
        )
    return (a - b).square() / (a + b + epsilon)


def non_negative(codes: Tensor, *, by: Literal["softplus", "relu"] = "softplus") -> Tensor:
    """Codes (n, d) with every component made >= 0 by softplus or relu, and unit norm again.

    A code without any positive component stays zero under relu: softplus never loses one.
    """
    if by not in ("softplus", "relu"):
        raise InvalidOption(f"by is {by!r}; it must be 'softplus' or 'relu'")
    return F.normalize(F.softplus(codes) if by == "softplus" else F.relu(codes))


class PairHead(nn.Module):
    """`sigmoid(sum_k w_k x_k + b)`, x the absolute or chi-square difference of two codes.

    Call it for logits (m,) of codes a (m, d) and b (m, d); `predict` gives probabilities. Starts at w = 0, b = 0
    (probability 1/2); `fit` finds the weights for given pairs, `metric.losses.PairLogistic` trains them together with
    the net.
    """

    def __init__(self, kind: Kind = "absolute", code_length: int = 128, *, epsilon: float = EPSILON) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InvalidOption(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        if code_length < 1 or epsilon <= 0:
            raise InvalidOption(f"code_length ({code_length}) and epsilon ({epsilon}) must be above 0")
        self.kind, self.epsilon = kind, epsilon
        self.weight = nn.Parameter(torch.zeros(code_length))
        self.bias = nn.Parameter(torch.zeros(()))

    def features(self, a: Tensor, b: Tensor) -> Tensor:
        """The component-wise differences (m, d) that the head weighs."""
        if a.shape != b.shape or a.ndim != 2 or a.shape[1] != len(self.weight):
            raise InvalidOption(
                f"a and b must both be (m, {len(self.weight)}); they are {tuple(a.shape)} and {tuple(b.shape)}"
            )
        return absolute_difference(a, b) if self.kind == "absolute" else chi_square(a, b, epsilon=self.epsilon)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.features(a, b) @ self.weight.to(a.dtype) + self.bias.to(a.dtype)

    @torch.no_grad()
    def predict(self, a: Tensor, b: Tensor) -> Tensor:
        """Probabilities (m,) that the pairs are mated."""
        return torch.sigmoid(self(a, b))


def fit(
    kind: Kind, a: Tensor, b: Tensor, same: Tensor, *, l2: float = 1e-3, epsilon: float = EPSILON, max_steps: int = 100
) -> PairHead:
    """The head that minimises `mean cross-entropy + l2 / 2 * |w|^2` over pairs of fixed codes, to machine precision.

    The problem is convex: damped Newton steps in float64 (Boyd & Vandenberghe, section 9.5). a, b (m, d); same (m,)
    bool with both values present. The bias reflects the share of mated pairs given. Raises InvalidOption for pairs of
    one kind only or l2 <= 0.
    """
    same = same.bool()
    if same.shape != a.shape[:1] or bool(same.all()) or not bool(same.any()):
        raise InvalidOption(
            f"fit needs one truth value per pair, mated and non-mated pairs both; "
            f"got {int(same.sum())} mated of {len(same)}"
        )
    if not l2 > 0:
        raise InvalidOption(f"l2 is {l2}; it must be above 0 (separable pairs would drive the weights to infinity)")
    head = PairHead(kind, a.shape[1], epsilon=epsilon)
    with torch.no_grad():
        x = head.features(a.double(), b.double())
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # [m, d + 1]
        ridge = torch.full_like(x[0], l2)
        ridge[-1] = 0
        target = same.to(x)

        def objective(w: Tensor) -> Tensor:
            z = x @ w
            return F.softplus(torch.where(same, -z, z)).mean() + (ridge * w.square()).sum() / 2

        w = torch.zeros_like(x[0])
        for _ in range(max_steps):
            p = torch.sigmoid(x @ w)
            gradient = x.T @ (p - target) / len(x) + ridge * w
            curvature = (x * (p * (1 - p))[:, None]).T @ x / len(x) + torch.diag(ridge)
            step = torch.linalg.solve(curvature + 1e-12 * torch.eye(len(w), dtype=w.dtype, device=w.device), gradient)
            decrease = float(gradient @ step)
            if decrease < 1e-20:
                break
            length, now = 1.0, float(objective(w))
            while length > 1e-10 and float(objective(w - length * step)) > now - 1e-4 * length * decrease:
                length /= 2
            if length <= 1e-10:  # no longer resolvable in float64
                break
            w = w - length * step
        head.weight.copy_(w[:-1])
        head.bias.copy_(w[-1])
    return head


def save(head: PairHead, path: str | os.PathLike[str]) -> None:
    """Write a head as safetensors (float32) with its kind in the metadata. Raises StorageError."""
    described = json.dumps({"kind": head.kind, "epsilon": head.epsilon})
    tensors = {name: value.float() for name, value in head.state_dict().items()}
    weights_file.write(path, tensors, {"kind": KIND, "head": described})


def load(path: str | os.PathLike[str]) -> PairHead:
    """Read a head written by `save`, in eval mode. Raises WeightsError where the file is not one."""
    tensors, metadata = weights_file.read(path)
    if metadata.get("kind") != KIND:
        raise WeightsError(f"{path} is not a pair head of likeness (its metadata has no kind {KIND!r})")
    with weights_file.damaged(path):
        described = weights_file.fields(metadata["head"])
        head = PairHead(described["kind"], len(tensors["weight"]), epsilon=described["epsilon"])
    return weights_file.fill(head, tensors, path).eval()
