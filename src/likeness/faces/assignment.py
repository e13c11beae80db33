"""Which priors answer for which face, and what wrong answers cost (torch).

Assignment: simplified optimal transport (SimOTA; Ge et al. 2021, "YOLOX"): each face takes the few priors near its
centre that are cheapest by the net's present answer, as many as their overlap with it sums to. Loss: score after
the varifocal loss (Zhang et al. 2021, eq. 2: the target is the overlap, wrong answers weigh 0.75 p^2), but with
weight 1 instead of the overlap for right ones, so that hard faces count as much as easy ones, and the root of the
overlap for target: small faces, whose boxes are never exact, are faces all the same (YuNet's score is a root, too);
GIoU boxes (Rezatofighi et al. 2019); smooth L1 landmarks in units of the face's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 1.5  # strides: priors this near to a face's centre may answer for it
CANDIDATES = 10  # the best overlaps that say how many priors a face takes
_FAR = 1e5  # cost of priors outside the face or too far from its centre: only taken where there are no others


def decode(raw: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Raw numbers (n, 15) at priors (n, 3) -> boxes (n, 4) as x1, y1, x2, y2 and landmarks (n, 5, 2), in pixels.

    The same as `decoding.decode`, with gradients."""
    stride = at[:, 2:3]
    centre = at[:, :2] + raw[:, 1:3] * stride
    half = raw[:, 3:5].clamp(max=8.0).exp() * stride / 2
    landmarks = at[:, None, :2] + raw[:, 5:15].reshape(-1, 5, 2) * stride[:, None]
    return torch.cat([centre - half, centre + half], dim=1), landmarks


def paired_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of boxes x1 y1 x2 y2 (..., 4), broadcast against each other."""
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = shared / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


def assign(logits: Tensor, boxes: Tensor, at: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Priors for the faces of one picture.

    Arguments: logits (n,), boxes (n, 4) x1 y1 x2 y2 as the net says now, priors (n, 3), faces (m, 4) x1 y1 x2 y2.
    Returns: indices of the priors that answer, and of the face each answers for, both (k,). Every face gets at least
    one prior unless a face that fits better takes it.
    """
    if not len(faces):
        nothing = torch.zeros(0, dtype=torch.long)
        return nothing, nothing
    centres = (faces[:, :2] + faces[:, 2:]) / 2
    offset = (at[None, :, :2] - centres[:, None]).abs()  # [m, n, 2]
    near = (offset <= RADIUS * at[None, :, 2:]).all(2)
    inside = ((at[None, :, :2] > faces[:, None, :2]) & (at[None, :, :2] < faces[:, None, 2:])).all(2)
    candidate = near.any(0) | inside.any(0)
    index = candidate.nonzero()[:, 0]
    if not len(index):
        index = torch.arange(len(at))
    overlap, _ = paired_iou(boxes[None, index], faces[:, None])  # [m, k]
    score = F.softplus(-logits[index])[None]  # BCE against a face
    # A face four strides wide suits a prior best; the term matters while boxes are still wrong everywhere.
    size = (faces[:, 2:] - faces[:, :2]).prod(1).sqrt()
    level = torch.log2(size[:, None] / (4 * at[index, 2])[None]).abs()
    cost = score - 3 * overlap.clamp(min=1e-6).log() + 0.7 * level + _FAR * ~(near & inside)[:, index]
    counts = overlap.topk(min(CANDIDATES, len(index)), dim=1).values.sum(1).int().clamp(min=1)
    order = cost.argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(len(index)).expand_as(order))
    take = rank < counts[:, None]
    contested = take.sum(0) > 1
    if contested.any():
        best = cost[:, contested].argmin(0)
        take[:, contested] = F.one_hot(best, len(faces)).T.bool()
    face, prior = take.nonzero(as_tuple=True)
    return index[prior], face


def detection_loss(
    raw: Tensor, at: Tensor, boxes: list[Tensor], landmarks: list[Tensor], sure: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch: score + 2 box + 5 landmarks.

    Arguments: raw (b, n, 15); priors (n, 3); per picture boxes (m, 4) x y w h, landmarks (m, 5, 2) with NaN where
    unknown, sure (m,) bool: False marks faces that cost nothing, found or not.
    Returns: the loss, and its parts, detached.
    """
    targets = torch.zeros_like(raw[..., 0])
    weights = torch.ones_like(targets)
    box_terms, point_terms = [], []
    for i in range(len(raw)):
        answer, points = decode(raw[i], at)
        corners = torch.cat([boxes[i][:, :2], boxes[i][:, :2] + boxes[i][:, 2:]], dim=1)
        with torch.no_grad():
            prior, face = assign(raw[i, :, 0], answer, at, corners[sure[i]])
            doubtful = corners[~sure[i]]
            if len(doubtful):
                inside = (
                    ((at[None, :, :2] >= doubtful[:, None, :2]) & (at[None, :, :2] <= doubtful[:, None, 2:]))
                    .all(2)
                    .any(0)
                )
                over = (paired_iou(answer[:, None], doubtful[None])[0] > 0.3).any(1)
                weights[i, inside | over] = 0
        if not len(prior):
            continue
        iou, giou = paired_iou(answer[prior], corners[sure[i]][face])
        targets[i, prior] = iou.detach().clamp(min=0.05).sqrt()
        weights[i, prior] = 1
        box_terms.append(1 - giou)
        wanted = landmarks[i][sure[i]][face]
        known = torch.isfinite(wanted).all(2).all(1)
        size = (boxes[i][sure[i]][face][known, 2:]).prod(1).sqrt()
        error = (points[prior][known] - wanted[known]) / size[:, None, None]
        point_terms.append(F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02, reduction="none").mean((1, 2)))
    logits = raw[..., 0]
    probability = logits.detach().sigmoid()
    positive = targets > 0
    weights = weights * torch.where(positive, 1.0, 0.75 * probability**2)
    score = (
        F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weights
    ).sum() / positive.sum().clamp(min=1)
    nothing = raw.sum() * 0
    box = torch.cat(box_terms).mean() if box_terms else nothing
    point = torch.cat(point_terms).mean() if point_terms and sum(map(len, point_terms)) else nothing
    return score + 2 * box + 5 * point, {"score": score.detach(), "box": box.detach(), "landmarks": point.detach()}
