"""Learning from a teacher: its codes, cut to the student's length, are one more target for one more loss.

The teacher (an ONNX encoder with long codes) sees each clean crop and its mirror image once; the student sees
augmented views and must give the code that the teacher gave to the clean picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidOption
from ..progress import Progress
from ..samples.files import atomic_write
from .data import content_key


def teacher_codes(
    images: np.ndarray,
    teacher: Path,
    *,
    cache: Path | None = None,
    batch: int = 64,
    on_progress: Progress | None = None,
) -> np.ndarray:
    """Codes (n, d) float32 of unit norm of `teacher` for `images` (n, h, w, 3) uint8 RGB: mean of crop and mirror.

    The teacher takes x/127.5 - 1, RGB. With `cache` (a folder) the codes are kept there, also of an interrupted run.
    """
    from ..nets.engine import Engine

    engine = Engine(teacher)
    file = part = None
    codes: list[np.ndarray] = []
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        file = cache / f"teacher-{content_key(images, teacher)}.npy"
        part = file.with_suffix(".part.npy")
        if file.exists():
            return np.load(file)
        if part.exists():
            codes.append(np.load(part))
    done = sum(map(len, codes))
    while done < len(images):
        x = (np.asarray(images[done : done + batch]).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        code = _unit(
            _unit(engine.run(np.ascontiguousarray(x))[0]) + _unit(engine.run(np.ascontiguousarray(x[..., ::-1]))[0])
        )
        codes.append(code.astype(np.float32))
        done += len(x)
        if on_progress:
            on_progress(done, len(images), {"stage": "teacher"})
        if part is not None and (done // batch) % 50 == 0:
            _save(part, np.concatenate(codes))
    result = np.concatenate(codes)
    if file is not None and part is not None:
        _save(file, result)
        part.unlink(missing_ok=True)
    return result


def check_teacher(teacher: Path, *, size: int, code_length: int) -> None:
    """Raises InvalidOption unless `teacher` makes codes of at least `code_length` numbers of crops of `size` pixels,
    UnreadableFile and WeightsError where it cannot be run at all."""
    from ..nets.engine import Engine

    shape = Engine(teacher).run(np.zeros((1, 3, size, size), np.float32))[0].shape
    if len(shape) != 2 or shape[1] < code_length:
        raise InvalidOption(
            f"the teacher's codes have {'x'.join(map(str, shape[1:]))} numbers, "
            f"fewer than the {code_length} to be learnt"
        )


def principal_directions(codes: np.ndarray, length: int) -> np.ndarray:
    """The (d, length) orthonormal directions that keep most of the energy of `codes` (n, d): PCA without centring,
    because it is inner products, not variances, that the student must keep."""
    moment = codes.astype(np.float64).T @ codes.astype(np.float64)
    _, vectors = np.linalg.eigh(moment)
    return vectors[:, ::-1][:, :length].astype(np.float32)


def distillation(codes: Tensor, targets: Tensor, teacher: Tensor, *, similarity_weight: float = 8.0) -> Tensor:
    """`mean(1 - <f, t>) + w * mean((F F' - T T')^2)`: point to the teacher's code and keep the batch's similarities.

    codes (n, k) unit student codes; targets (n, k) unit, the teacher's codes along its first k principal directions;
    teacher (n, d) unit, whole. The second term is similarity-preserving distillation (Tung & Mori 2019, eq. 2-4,
    on inner products of the codes themselves).
    """
    pointing = 1 - (codes * targets).sum(1)
    similarity = (codes @ codes.T - teacher @ teacher.T).square()
    return pointing.mean() + similarity_weight * similarity.mean()


def cut(codes: np.ndarray, directions: np.ndarray) -> Tensor:
    """Teacher codes (n, d) along `directions` (d, k), unit norm again: the student's targets (n, k)."""
    return torch.from_numpy(_unit(codes @ directions))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _save(file: Path, codes: np.ndarray) -> None:
    atomic_write(file, lambda stream: np.save(stream, codes))
