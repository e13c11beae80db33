"""Labeled Faces in the Wild, View 2 (Huang et al. 2007): ten folds of 300 mated and 300 non-mated pairs.

From the photographs as they are to the decision: detector, alignment, encoder. The threshold of a fold is the one that
decides most pairs of the nine other folds rightly. A pair with a photograph that gave no template counts as an error,
and is left out where thresholds are chosen; no pair is dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidOption, UnreadableFile
from ..progress import Progress
from ..recognition.decision import distance
from ..recognition.encoder import Encoder, central, resolve
from .rates import TarAtFar, best_threshold, tar_at_far

SUFFIXES = (".jpg", ".webp", ".png", ".jpeg")
LISTS = ("pairs.txt", "../lfw_lists/pairs.txt", "../pairs.txt")


@dataclass(frozen=True)
class Pair:
    """Two photographs (person, number) of a fold; mated if they show one person."""

    fold: int
    a: tuple[str, int]
    b: tuple[str, int]

    @property
    def mated(self) -> bool:
        return self.a[0] == self.b[0]


@dataclass(frozen=True)
class Fold:
    """One of the ten parts: accuracy on it at the threshold (a distance) that was chosen on the others."""

    fold: int
    accuracy: float
    threshold: float
    failed_pairs: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "fold": self.fold,
            "accuracy": self.accuracy,
            "threshold": self.threshold,
            "failed_pairs": self.failed_pairs,
        }


@dataclass(frozen=True)
class LfwResult:
    """View 2: mean accuracy of the folds (0...1), its standard error (standard deviation of the folds / sqrt(10)).

    `failed`: photographs that gave no template; `failed_pairs`: pairs that this spoiled, each counted as an error.
    `tar_at_far`: over all pairs together; a failed mated pair is not accepted, a failed non-mated one left out.
    """

    accuracy: float
    standard_error: float
    failed: int
    failed_pairs: int
    pairs: int
    photographs: int
    folds: tuple[Fold, ...]
    tar_at_far: TarAtFar
    failures: tuple[tuple[str, str], ...]
    seconds: float
    encoder: str
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "failed": self.failed,
            "failed_pairs": self.failed_pairs,
            "pairs": self.pairs,
            "photographs": self.photographs,
            "folds": [fold.to_dict() for fold in self.folds],
            "tar_at_far": self.tar_at_far.to_dict(),
            "failures": [{"photograph": name, "reason": reason} for name, reason in self.failures],
            "seconds": self.seconds,
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
        }


def evaluate_lfw(
    folder: str | os.PathLike[str],
    *,
    encoder: str | Encoder = "face",
    lists: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> LfwResult:
    """View 2 of the photographs `folder`/NAME/NAME_0001.jpg (or .webp, .png).

    `lists`: pairs.txt or the folder it is in; by default it is looked for in `folder`, beside it, and in lfw_lists
    beside it. The face of a photograph is the large one nearest its centre (`encoder.central`): LFW's photographs are
    centred on their subject. Each photograph is encoded once. `on_progress(done, photographs, {"failed": n})`.
    Raises UnreadableFile where a photograph or list is missing, InvalidOption where the list is malformed.
    """
    started = time.perf_counter()
    folder = Path(folder)
    pairs = read_pairs(find_list(folder, lists))
    names = sorted({photograph for pair in pairs for photograph in (pair.a, pair.b)})
    paths = [locate(folder, *name) for name in names]
    coder = resolve(encoder)
    chosen = {"choose": central} if hasattr(coder, "detector") else {}
    codes: dict[tuple[str, int], np.ndarray] = {}
    failures: list[tuple[str, str]] = []
    for name, path, found in zip(names, paths, coder.encode_many(paths, on_progress, **chosen), strict=True):
        if found.templates:
            codes[name] = found.templates[0].code
        else:
            failures.append((path.name, "; ".join(found.reasons)))
    distances = np.array([_distance(codes.get(pair.a), codes.get(pair.b)) for pair in pairs])  # NaN where one failed
    folds = cross_validate(pairs, distances)
    accuracies = np.array([fold.accuracy for fold in folds])
    failed = np.isnan(distances)
    return LfwResult(
        accuracy=float(accuracies.mean()),
        standard_error=float(accuracies.std(ddof=1) / np.sqrt(len(folds))),
        failed=len(failures),
        failed_pairs=int(failed.sum()),
        pairs=len(pairs),
        photographs=len(names),
        folds=folds,
        tar_at_far=_tar_at_far(pairs, distances),
        failures=tuple(failures),
        seconds=time.perf_counter() - started,
        encoder=coder.name,
        fingerprint=coder.fingerprint,
    )


def find_list(folder: Path, lists: str | os.PathLike[str] | None = None) -> Path:
    """The file pairs.txt that belongs to the photographs in `folder`. Raises UnreadableFile where it looked."""
    if not folder.is_dir():
        raise UnreadableFile(f"{folder}: no such folder")
    given = Path(lists) if lists is not None else None
    looked = [given, given / "pairs.txt"] if given else [folder.resolve() / name for name in LISTS]
    for place in looked:
        if place.is_file():
            return place
    raise UnreadableFile(f"no pairs.txt found (looked for {', '.join(map(str, looked))}); name it with lists=")


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """The pairs of a View 2 list: "folds<TAB>n", then for each fold n mated lines (name, i, j) and n non-mated ones
    (name, i, other, j)."""
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{file}: {error}") from error
    try:
        folds, count = (int(word) for word in lines[0])
        if folds < 2 or count < 1:
            raise ValueError(f"it declares {folds} folds of {count} + {count} pairs")
        pairs = []
        for number, words in enumerate(lines[1:]):
            fold, within = divmod(number, 2 * count)
            if len(words) != (3 if within < count else 4):
                raise ValueError(f"line {number + 2} is {' '.join(words)!r}")
            other = words[0] if within < count else words[2]
            pairs.append(Pair(fold + 1, (words[0], int(words[1])), (other, int(words[-1]))))
        if len(pairs) != 2 * folds * count:
            raise ValueError(f"it declares {folds} folds of {count} + {count} pairs and has {len(pairs)} pairs")
    except (ValueError, IndexError) as error:
        raise InvalidOption(f"{file} is not a list of pairs in folds (View 2): {error}") from error
    return tuple(pairs)


def cross_validate(pairs: Sequence[Pair], distances: np.ndarray) -> tuple[Fold, ...]:
    """Accuracy on each fold with the threshold of all others. Distance NaN: the pair failed, which is an error."""
    number = np.array([pair.fold for pair in pairs])
    mated = np.array([pair.mated for pair in pairs])
    usable = ~np.isnan(distances)
    folds = []
    for fold in np.unique(number):
        others = usable & (number != fold)
        if not (others & mated).any() or not (others & ~mated).any():
            raise InvalidOption("too few photographs gave a template to choose a threshold; see the failures")
        threshold, _ = best_threshold(distances[others & mated], distances[others & ~mated])
        inside = number == fold
        right = usable[inside] & ((distances[inside] <= threshold) == mated[inside])
        folds.append(Fold(int(fold), float(right.mean()), threshold, int((inside & ~usable).sum())))
    return tuple(folds)


def _tar_at_far(pairs: Sequence[Pair], distances: np.ndarray) -> TarAtFar:
    mated = [i for i, pair in enumerate(pairs) if pair.mated]
    non_mated = [i for i, pair in enumerate(pairs) if not pair.mated and not np.isnan(distances[i])]
    return tar_at_far(
        np.nan_to_num(distances[mated], nan=np.inf),
        distances[non_mated],
        1e-3,
        mated_subjects=np.array([pairs[i].a[0] for i in mated]),
        non_mated_subjects=np.array([(pairs[i].a[0], pairs[i].b[0]) for i in non_mated]),
    )


def _distance(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None:
        return float("nan")
    return distance(a, b)


def locate(folder: Path, person: str, number: int) -> Path:
    """The file of photograph `number` of a person. Raises UnreadableFile where there is none."""
    stem = f"{person}_{number:04d}"
    for suffix in SUFFIXES:
        if (path := folder / person / (stem + suffix)).is_file():
            return path
    raise UnreadableFile(f"{folder / person / stem}: no such photograph ({', '.join(SUFFIXES)}); the set is incomplete")
