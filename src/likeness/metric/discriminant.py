"""Fisher's linear discriminant (1936; of faces: Fisherfaces, Belhumeur 1997) as the last layer of an encoder: the
directions in which people differ most for how much photographs of one person do.

A distilled code points where the teacher's does, as well as it can; which of its directions tell people apart and which
follow pose and light, only labels say. Solving for that takes a minute and one look at each photograph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidOption
from ..nets import identity
from ..nets.activations import activations
from ..progress import Progress
from ..samples.files import writable
from .data import Align, Crops, held_out, load_crops
from .training import MOST_STRANGERS, SIZE, Trained, held_out_figures, inputs, tower_of_pictures

LAYER = "norm"  # of the tower: what its last, linear layer makes a code of


def discriminant(
    features: np.ndarray, subjects: np.ndarray, length: int, *, ridge: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix (length, d) and vector (length,) of `W x + b`, which is 0 for the mean of `features` (n, d).

    The rows of W are the v of largest `v' S_T v / v' (S_W + r I) v`, scaled so that `v' (S_W + r I) v` is 1: each
    direction counts by what it tells. S_W is the mean squared deviation from the subject's mean, without bias for small
    subjects; r = `ridge` times the mean of its diagonal, because some thousand people say little about the smallest
    directions. S_T is the scatter of all features around their mean, also of those who have one photograph only.

    Belhumeur 1997, eq. 4, has the scatter between subjects S_B in the place of S_T, and no ridge. Where S_T = S_B + S_W
    and r = 0 both have the same solutions. With a ridge they have not: for a direction of variance w within subjects
    S_T adds w / (w + r) < 1 to the ratio, in favour of those that are known well over those that the ridge is most of.

    subjects: (n,) whose features these are. Raises InvalidOption where no subject has two, `length` is more than d, or
    S_W + r I has no inverse.
    """
    _, place, count = np.unique(subjects, return_inverse=True, return_counts=True)
    several = count[place] > 1
    if not several.any():
        raise InvalidOption("nobody has two photographs: nothing tells how much those of one person differ")
    if not 1 <= length <= features.shape[1]:
        raise InvalidOption(f"a code of {length} numbers cannot be made of {features.shape[1]}")
    x = features.astype(np.float64)
    means = np.zeros((len(count), x.shape[1]))
    np.add.at(means, place, x)
    means /= count[:, None]
    apart = (x - means[place])[several]
    within = (apart * (count / np.maximum(count - 1, 1))[place][several][:, None]).T @ apart / len(apart)
    within += ridge * within.diagonal().mean() * np.eye(len(within))
    mean = x.mean(0)
    total = (x - mean).T @ (x - mean) / len(x)
    # with the root of `within` the generalised problem becomes an ordinary one
    try:
        root = np.linalg.inv(np.linalg.cholesky(within))
    except np.linalg.LinAlgError:
        raise InvalidOption(
            f"with ridge {ridge} there are directions in which photographs of one person do not differ at all: "
            "give a ridge above 0, and photographs that are not the same"
        ) from None
    _, vectors = np.linalg.eigh(root @ total @ root.T)
    rows = (root.T @ vectors[:, ::-1][:, :length]).T
    return rows, -rows @ mean


def train_discriminant(
    folder: Path,
    *,
    out: Path,
    init: Path,
    ridge: float = 0.3,
    cache: Path | None = None,
    align: Align | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Solve for the last layer of a trained encoder anew, on people whose names are known; the rest stays as it is.

    folder: people/NAME/*.jpg as for `train recognition`; every 20th person is held out.
    out: the safetensors file to write.
    init: the encoder to start from.
    ridge: how much of the mean variance within people is added in every direction: more trusts the people less.
    cache: a folder for decoded crops.
    align: as for `train_recognition`.

    Raises InvalidOption where nobody has two photographs, WeightsError where `init` is no encoder.
    """
    if not 0 < ridge < float("inf"):
        raise InvalidOption(f"ridge is {ridge}; it must be above 0")
    tower = tower_of_pictures(Path(init))
    out = writable(out)
    crops = load_crops(folder, align=align, size=SIZE, cache=cache, on_progress=on_progress)
    held = held_out(crops.subjects)
    rows = np.flatnonzero(~held)
    features = _features(tower, crops, rows, on_progress)
    weight, bias = discriminant(features, crops.subjects[rows], tower.architecture.code_length, ridge=ridge)
    with torch.no_grad():
        tower.code.weight.copy_(torch.from_numpy(weight))
        tower.code.bias.copy_(torch.from_numpy(bias))
    identity.save(tower, out)
    strangers = crops.where(np.flatnonzero(held)[:MOST_STRANGERS])
    return Trained(str(out), 0, len(rows), held_out_figures(tower, strangers), crops.skipped)


@torch.no_grad()
def _features(
    tower: identity.Tower, crops: Crops, rows: np.ndarray, on_progress: Progress | None, *, batch: int = 64
) -> np.ndarray:
    """What the last layer sees of each crop and its mirror image, their mean (n, d): a code is the mean of both."""
    views = inputs(crops, rows, "features", on_progress, batch=batch)
    return np.concatenate([((_last(tower, x) + _last(tower, x.flip(3))) / 2).numpy() for x in views])


def _last(tower: identity.Tower, x: Tensor) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    return activations(tower, x, [LAYER])[LAYER].flatten(1)
