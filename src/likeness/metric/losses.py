"""The losses that teach a distance, each first as its formula, then as an objective over a batch.

A formula is a pure function of distances or logits and returns one value per triplet or pair. An objective is a
module called as `objective(codes (n, d), subjects (n,), generator=...) -> Terms`; all of them can take each other's
place in the training loop. Some have weights of their own (`ArcFace`, `PairLogistic`): give `objective.parameters()`
to the optimiser too. Samples whose subject is negative (nobody knows who it is) are left out. A batch in which no
triplet or pair can be formed is an outcome, not an error: loss 0 with zero gradients, and `info["triplets"]` or
`["pairs"]` is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidOption, UnknownName
from . import miners
from .heads import PairHead


@dataclass(frozen=True)
class Terms:
    """What an objective says of one batch: the scalar `loss` to minimise and plain figures to report."""

    loss: Tensor
    info: dict[str, float] = field(default_factory=dict)


# --- formulas ---------------------------------------------------------------------------------------------------------


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`d(a, b) = |a - b|^2` of all pairs: (n, d), (m, d) -> (n, m), as `|a|^2 + |b|^2 - 2 a.b`, never below 0.

    Never in less than float32, also under autocast: for unit codes the error is about 1e-6 in float32, 1e-15 in
    float64.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = _full(a), _full(b)
        return (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T).clamp_min(0)


def triplet(d_ap: Tensor, d_an: Tensor, *, margin: float = 0.2) -> Tensor:
    """`max(d(A, P) - d(A, N) + margin, 0)` per triplet, of squared distances (FaceNet, Schroff 2015, eq. 3)."""
    return (d_ap - d_an + margin).clamp_min(0)


def batch_all(distances: Tensor, subjects: Tensor, *, margin: float = 0.2) -> tuple[Tensor, int, int]:
    """Sum of `triplet` over every triplet of the batch, how many are active, how many there are.

    "Batch all" (Hermans 2017, eq. 6) in O(n^2) memory and O(n^2 log n) time. The sum of hinges is piecewise linear in
    the distances: it equals `sum_ij W_ij d_ij + margin * active`, where W_ij is, for a mated pair (a, p), the number
    of negatives with `d(a, n) < d(a, p) + margin`, and for a non-mated pair (a, n) minus the number of positives with
    `d(a, p) > d(a, n) - margin`. Both are counted by binary search in sorted rows. W is constant between the kinks,
    so autograd's gradient W is exact.
    """
    miners.check(distances, subjects)
    n = len(subjects)
    if n == 0:
        return distances.sum(), 0, 0
    with torch.no_grad():
        d = distances.detach()
        same = subjects[:, None] == subjects[None, :]
        mated = same & ~torch.eye(n, dtype=torch.bool, device=d.device)
        # Both counts compare the same rounded number d(a, p) + margin with d(a, n): they agree on who is active.
        reach = d + margin
        rows = d.masked_fill(same, torch.inf).sort(1).values
        weight = torch.searchsorted(rows, reach).mul_(mated)
        active = int(weight.sum())
        rows = reach.masked_fill_(~mated, -torch.inf).sort(1).values
        weight -= torch.searchsorted(rows, d.contiguous(), right=True).neg_().add_(n).mul_(~same)
        positives = mated.sum(1)
        total = int((positives * (n - 1 - positives)).sum())
    return (weight * distances).sum() + margin * active, active, total


def contrastive(d: Tensor, same: Tensor, *, margin: float = 1.0) -> Tensor:
    """`D^2 / 2` for mated pairs, `max(margin - D, 0)^2 / 2` for the others, with `D = sqrt(d)` (Hadsell 2006, eq. 4).

    d: squared distances, any shape; same: bool of that shape. At D = 0 a non-mated pair has no direction to go:
    gradient 0.
    """
    apart = d > 0
    root = torch.where(apart, torch.where(apart, d, 1).sqrt(), 0)
    return torch.where(same, d, (margin - root).clamp_min(0).square()) / 2


def pair_logistic(logits: Tensor, same: Tensor) -> Tensor:
    """`-log sigmoid(z)` for mated pairs, `-log(1 - sigmoid(z))` for the others: binary cross-entropy (Taigman 2014,
    section 4.2).
    """
    return F.softplus(torch.where(same, -logits, logits))


def arcface_logits(cosines: Tensor, subjects: Tensor, *, margin: float = 0.5, scale: float = 32.0) -> Tensor:
    """`scale * cos(theta + margin)` at each sample's own class, `scale * cos(theta)` elsewhere (ArcFace, Deng 2019,
    eq. 3).

    cosines (n, classes), subjects (n,). Where theta + margin would pass pi, cosine would rise again; there the authors'
    straight line `cos(theta) - margin * sin(margin)` goes on falling.
    """
    own = cosines.gather(1, subjects[:, None])
    angle = torch.tensor(margin, dtype=cosines.dtype, device=cosines.device)
    sine = (1 - own.square()).clamp_min(torch.finfo(own.dtype).eps).sqrt()
    turned = own * angle.cos() - sine * angle.sin()
    turned = torch.where(own > -angle.cos(), turned, own - margin * angle.sin())
    return scale * cosines.scatter(1, subjects[:, None], turned)


# --- objectives -------------------------------------------------------------------------------------------------------


class Triplet(nn.Module):
    """Triplet loss over the triplets that a miner picks from the batch, on squared distances.

    Arguments:
        miner: "semi-hard", "hard", "random" or "batch-all".
        margin: alpha, > 0; squared distances of unit codes lie in 0...4.
        reduction: "active" divides the sum J by the number of triplets with a loss above 0, so that the step does not
            fade as more and more triplets are learnt (Hermans 2017, "BA != 0"); "mean" divides by all mined; "sum" is
            J itself.

    info: `triplets` mined, `active` of them, `active_share` of those sought (see `Triplets.sought`), `sum` = J,
    `mean_active`, `mated_distance` and `non_mated_distance`, the means over the batch (both near 0: a collapse).
    """

    def __init__(
        self,
        *,
        miner: str = "semi-hard",
        margin: float = 0.2,
        reduction: Literal["active", "mean", "sum"] = "active",
    ) -> None:
        super().__init__()
        if miner != miners.BATCH_ALL:
            miners.miner(miner)
        _positive("margin", margin)
        if reduction not in ("active", "mean", "sum"):
            raise InvalidOption(f"reduction is {reduction!r}; it must be 'active', 'mean' or 'sum'")
        self.miner, self.margin, self.reduction = miner, margin, reduction

    def forward(self, codes: Tensor, subjects: Tensor, *, generator: torch.Generator | None = None) -> Terms:
        codes, subjects = _labelled(codes, subjects)
        distances = squared_distances(codes, codes)
        if self.miner == miners.BATCH_ALL:
            total, active, count = batch_all(distances, subjects, margin=self.margin)
            sought = count
        else:
            mined = miners.miner(self.miner)(distances, subjects, margin=self.margin, generator=generator)
            losses = triplet(
                distances[mined.anchor, mined.positive], distances[mined.anchor, mined.negative], margin=self.margin
            )
            total, active, count, sought = losses.sum(), int((losses > 0).sum()), len(mined), mined.sought
        total = total + 0 * codes.sum()  # an empty batch still has a (zero) gradient
        divisor = {"active": active, "mean": count, "sum": 1}[self.reduction]
        info = {
            "triplets": count,
            "active": active,
            "active_share": active / max(sought, 1),
            "sum": float(total.detach()),
            "mean_active": float(total.detach()) / max(active, 1),
            **_spread(distances, subjects),
        }
        return Terms(total / max(divisor, 1), info)


class Contrastive(nn.Module):
    """Contrastive loss over all pairs of the batch: half the mean over mated pairs plus half the mean over the others.

    The paper sums over its pairs; in a batch the non-mated ones outnumber the mated n to 1 and would drown them,
    hence the two means. info: `pairs`, `active_share` (non-mated pairs inside the margin), `mated_distance`,
    `non_mated_distance`.
    """

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        _positive("margin", margin)
        self.margin = margin

    def forward(self, codes: Tensor, subjects: Tensor, *, generator: torch.Generator | None = None) -> Terms:
        codes, subjects = _labelled(codes, subjects)
        distances = squared_distances(codes, codes)
        same, pairs = _pair_masks(subjects)
        losses = contrastive(distances, same, margin=self.margin)
        inside = int((pairs & ~same & (distances < self.margin**2)).sum())
        info = {
            "pairs": int(pairs.sum()),
            "active_share": inside / max(int((pairs & ~same).sum()), 1),
            **_spread(distances, subjects),
        }
        return Terms((_mean(losses, pairs & same) + _mean(losses, pairs & ~same)) / 2 + 0 * codes.sum(), info)


class PairLogistic(nn.Module):
    """Binary cross-entropy of a pair head ("the same subject?") over all mated pairs and as many non-mated ones,
    drawn anew.

    info: `pairs`, `accuracy` at probability 1/2, `mated_distance`, `non_mated_distance`.
    """

    def __init__(self, head: PairHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, codes: Tensor, subjects: Tensor, *, generator: torch.Generator | None = None) -> Terms:
        codes, subjects = _labelled(codes, subjects)
        a, b, same = draw_pairs(subjects, generator=generator)
        logits = self.head(_full(codes)[a], _full(codes)[b])
        losses = pair_logistic(logits, same)
        info = {
            "pairs": len(same),
            "accuracy": float(((logits > 0) == same).float().mean()) if len(same) else 0.0,
            **_spread(squared_distances(codes, codes).detach(), subjects),
        }
        return Terms(losses.sum() / max(len(same), 1) + 0 * codes.sum(), info)


class ArcFace(nn.Module):
    """Additive angular margin: cross-entropy over subjects, each a unit vector learnt beside the net (Deng 2019).

    Arguments:
        classes: number of subjects; a batch's `subjects` are in 0...classes - 1.
        code_length: d of the codes.
        margin: radians, 0...pi/2. scale: the s of the paper, > 0 (64 there; less for few subjects).
        seed: of the initial class vectors.

    info: `accuracy` (nearest class vector, no margin), `samples`.
    """

    def __init__(
        self, classes: int, code_length: int = 128, *, margin: float = 0.5, scale: float = 32.0, seed: int = 0
    ) -> None:
        super().__init__()
        _positive("scale", scale)
        if not 0 <= margin < torch.pi / 2:
            raise InvalidOption(f"margin is {margin}; an angular margin must lie in 0...pi/2 (radians)")
        self.margin, self.scale = margin, scale
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, code_length, generator=generator) / code_length**0.5)

    @torch.no_grad()
    def start(self, codes: Tensor, subjects: Tensor) -> None:
        """Let each subject's vector be the direction of the mean of its codes (n, d), as fine-tuning wants it: from
        vectors drawn at random the first steps would undo what the net has learnt. Subjects (n,) not among them keep
        theirs."""
        sums = torch.zeros_like(self.weight).index_add_(0, subjects.to(codes.device), codes.to(self.weight))
        known = torch.bincount(subjects, minlength=len(self.weight)).to(codes.device) > 0
        self.weight[known] = F.normalize(sums[known])

    def forward(self, codes: Tensor, subjects: Tensor, *, generator: torch.Generator | None = None) -> Terms:
        codes, subjects = _labelled(codes, subjects)
        if not len(codes):
            return Terms(0 * (codes.sum() + self.weight.sum()), {"samples": 0, "accuracy": 0.0})
        if int(subjects.max()) >= len(self.weight):
            raise InvalidOption(
                f"subject {int(subjects.max())} is outside the {len(self.weight)} classes of this ArcFace"
            )
        with torch.autocast(codes.device.type, enabled=False):
            cosines = F.normalize(_full(codes)) @ F.normalize(self.weight).T  # [n, classes]
            loss = F.cross_entropy(arcface_logits(cosines, subjects, margin=self.margin, scale=self.scale), subjects)
        accuracy = float((cosines.detach().argmax(1) == subjects).float().mean())
        return Terms(loss, {"samples": len(codes), "accuracy": accuracy})


NAMES = ("triplet", "contrastive", "pair-logistic", "arcface")


def objective(
    name: str,
    *,
    classes: int,
    code_length: int = 128,
    miner: str = "semi-hard",
    margin: float | None = None,
    seed: int = 0,
) -> nn.Module:
    """The objective called `name`, one of `NAMES`; `margin` None takes the default of that objective.

    Raises UnknownName with the nearest name. `classes`, `code_length` and `seed` matter to those with weights,
    `miner` to triplet.
    """
    own: dict[str, Any] = {} if margin is None else {"margin": margin}
    if name == "triplet":
        return Triplet(miner=miner, **own)
    if name == "contrastive":
        return Contrastive(**own)
    if name == "arcface":
        return ArcFace(classes, code_length, seed=seed, **own)
    if name == "pair-logistic":
        return PairLogistic(PairHead("absolute", code_length))
    near = get_close_matches(name, NAMES, 1, 0)[0]
    raise UnknownName(f"no loss is called {name!r}; did you mean {near!r}? (there are {', '.join(NAMES)})")


def draw_pairs(subjects: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Indices a, b (m,) and same (m,) bool: every mated pair once, and as many distinct non-mated ones where there
    are so many.
    """
    same, pairs = _pair_masks(subjects)
    mated, others = (pairs & same).nonzero(), (pairs & ~same).nonzero()
    if len(mated) and len(others) > len(mated):
        device = generator.device if generator is not None else subjects.device
        drawn = torch.randperm(len(others), generator=generator, device=device)[: len(mated)]
        others = others[drawn.to(subjects.device)]
    both = torch.cat([mated, others])
    return both[:, 0], both[:, 1], torch.arange(len(both), device=subjects.device) < len(mated)


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _labelled(codes: Tensor, subjects: Tensor) -> tuple[Tensor, Tensor]:
    if codes.ndim != 2 or subjects.shape != codes.shape[:1] or subjects.is_floating_point():
        raise InvalidOption(
            f"codes must be (n, d) and subjects (n,) whole numbers; they are "
            f"{tuple(codes.shape)} and {tuple(subjects.shape)} {subjects.dtype}"
        )
    known = subjects >= 0
    return (codes, subjects) if bool(known.all()) else (codes[known], subjects[known])


def _pair_masks(subjects: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n) masks: same subject; each unordered pair once."""
    n = len(subjects)
    return subjects[:, None] == subjects[None, :], torch.ones(n, n, dtype=torch.bool, device=subjects.device).triu(1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)


def _spread(distances: Tensor, subjects: Tensor) -> dict[str, float]:
    same, pairs = _pair_masks(subjects)
    d = distances.detach()
    return {"mated_distance": float(_mean(d, pairs & same)), "non_mated_distance": float(_mean(d, pairs & ~same))}


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InvalidOption(f"{name} is {value}; it must be above 0")
