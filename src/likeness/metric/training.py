"""`likeness train recognition`: a folder of people, and a teacher if there is one, become an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption
from ..nets import identity
from ..progress import Progress
from ..samples.files import writable
from . import distillation, heads, losses
from .augment import augment, draw_moves, to_input
from .data import Align, Crops, held_out, load_crops
from .hints import Hints, check_hints, teacher_maps
from .loop import CollapseAlarm, fit, seeded
from .losses import Terms
from .plan import Plan
from .samplers import SubjectsTimesSamples

SIZE = 112  # px: of the crops, and of the net at full resolution
MOST_STRANGERS = 1500  # held-out crops that are looked at: a million pairs
Context = tuple[Tensor, Tensor, Tensor]  # places among the training samples (b,), subjects (b,), moves (b, 2, 3)
SOLVED = 1000  # crops from which the hints' heads are solved for: some 10,000 equations per unknown
HINT_WEIGHT = 0.5  # of the mean squared error of each hint: beside the codes' loss, not above it


@dataclass(frozen=True)
class Trained:
    """What a training run gave.

    out, head: the files of the averaged net and, with loss pair-logistic, of its pair head (`metric.heads.load`; else
    None). samples: seen in all, repeats counted. skipped: photographs without one clear face. figures: how well the
    averaged net tells held-out people apart; empty where these have no mated or no non-mated pair (with 20 people or
    fewer only one is held out).
    """

    out: str
    steps: int
    samples: int
    figures: dict[str, float]
    skipped: int = 0
    head: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_recognition(
    folder: Path,
    *,
    out: Path,
    loss: str = "triplet",
    miner: str = "semi-hard",
    margin: float | None = None,
    teacher: Path | None = None,
    hints: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    init: Path | None = None,
    widths: tuple[int, ...] = (48, 96, 192),
    blocks: tuple[int, ...] = (1, 3, 1),
    sizes: tuple[int, ...] = (64, 80, 112),
    shares: tuple[float, ...] = (0.45, 0.35, 0.2),
    steps: int = 10_000,
    batch: int = 128,
    per_subject: int = 4,
    optimizer: str = "muon",
    lr: float = 2e-3,
    warmup: int = 200,
    every: int = 500,
    seed: int = 0,
    precision: str = "auto",
    device: str = "cpu",
    checkpoint: Path | None = None,
    cache: Path | None = None,
    align: Align | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Train a tower on faces of known people and write it to `out` (float16 safetensors) at every checkpoint.

    folder: people/NAME/*.jpg, aligned crops of 112x112 pixels or photographs of one person; every 20th person is
        held out and never trained on.
    out: the safetensors file to write; the head of pair-logistic goes beside it, with the ending .head.safetensors.
    loss: distillation (needs a teacher), triplet, contrastive, pair-logistic or arcface; with a teacher, both.
    miner: triplets to learn from, one of random, hard, semi-hard, batch-all.
    margin: of the loss, default its own: triplet 0.2 (alpha, on squared distances), contrastive 1, arcface 0.5
        (radians); pair-logistic has none.
    teacher: an ONNX encoder of aligned crops (RGB, x/127.5 - 1) whose codes are distilled.
    hints: names of values inside the teacher, maps that the net's own maps of the same size learn to predict.
    unlabelled: folders of faces without a name; they serve distillation only.
    init: an encoder to start from (fine-tuning); its architecture wins over widths and blocks, and arcface's subject
        vectors start at the mean codes that it gives them.
    widths: channels of each stage of the net.
    blocks: residual blocks of each stage.
    sizes: resolutions in pixels, one after the other: a low one first sees more faces in the same time.
    shares: share of the steps spent at each of these sizes.
    steps: optimiser steps in all.
    batch: samples per step.
    per_subject: samples of each subject in a batch (the losses on labels need pairs).
    optimizer: muon or adamw; muon needs about a fifth fewer steps for the same loss.
    lr: peak learning rate.
    warmup: steps of linear warm-up before the cosine.
    every: steps between checkpoints and looks at the held-out people.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a one-second probe finds faster.
    device: where to train, as torch names it.
    checkpoint: a folder; an interrupted run, called again with the same options, goes on from it.
    cache: a folder for decoded crops and the teacher's codes and maps; one process should fill it before several
        train from it.
    align: what makes the aligned crop of a photograph of another size than 112x112, or None where no face is clear
        (such photographs are skipped): likeness.faces.cropping.crop_of_one.

    Raises InvalidOption or UnknownName before anything is read where options do not fit, WeightsError where the
    checkpoint belongs to other options, Collapse.
    """
    plan = Plan(
        loss=loss,
        miner=miner,
        margin=margin,
        teacher=Path(teacher) if teacher else None,
        hints=tuple(hints),
        init=Path(init) if init else None,
        widths=tuple(widths),
        blocks=tuple(blocks),
        sizes=tuple(sizes),
        shares=tuple(shares),
        steps=steps,
        batch=batch,
        per_subject=per_subject,
        optimizer=optimizer,
        lr=lr,
        warmup=warmup,
        every=every,
        seed=seed,
        precision=precision,
        device=device,
        cache=Path(cache) if cache else None,
    )
    if unlabelled and plan.labelled:
        raise InvalidOption(f"loss {loss!r} compares subjects; unlabelled faces serve 'distillation' only")
    tower = _tower(plan)
    out = writable(out)
    crops = load_crops(folder, unlabelled, align=align, size=SIZE, cache=plan.cache, on_progress=on_progress)
    held = held_out(crops.subjects)
    lesson = Lesson(plan, tower, crops, np.flatnonzero(~held), on_progress)
    strangers = crops.where(np.flatnonzero(held)[:MOST_STRANGERS])
    head = out.with_suffix(".head.safetensors") if isinstance(lesson.criterion, losses.PairLogistic) else None
    figures: dict[str, float] = {}

    def keep(averaged: nn.Module, step: int) -> dict[str, float]:
        identity.save(averaged, out)  # type: ignore[arg-type]
        if head is not None and isinstance(lesson.criterion, losses.PairLogistic):
            heads.save(lesson.criterion.head, head)
        figures.update(held_out_figures(averaged, strangers))
        return figures

    with lesson.listening():
        fit(
            tower,
            lesson.batch,
            lesson.objective,
            schedule=plan.schedule,
            extra=lesson.extra,
            optimizer=optimizer,
            seed=seed,
            checkpoint=Path(checkpoint) if checkpoint else None,
            options=lesson.deciding(),
            every=every,
            precision=precision,
            alarm=CollapseAlarm(),
            on_checkpoint=keep,
            on_progress=on_progress,
        )
    seen = steps * (batch if lesson.sampler else min(batch, len(lesson.rows)))
    return Trained(str(out), steps, seen, figures, crops.skipped, str(head) if head else None)


def _tower(plan: Plan) -> identity.Tower:
    """A new net, or the one to start from; it and the teacher are tried before hours of work rely on them."""
    if plan.init:
        tower = tower_of_pictures(plan.init)
    else:
        with seeded(plan.seed):
            tower = identity.Tower(identity.Architecture(widths=plan.widths, blocks=plan.blocks))
    plan.check_fits(tower.architecture)
    if plan.teacher:
        distillation.check_teacher(plan.teacher, size=SIZE, code_length=tower.architecture.code_length)
        if plan.hints:
            check_hints(plan.teacher, plan.hints, tower, size=SIZE)
    return tower.to(plan.device)


def tower_of_pictures(file: Path) -> identity.Tower:
    """The encoder in `file`. Raises WeightsError where it is none, InvalidOption where it takes no colour pictures."""
    tower = identity.load(file)
    if (tower.architecture.spatial_dims, tower.architecture.in_channels) != (2, 3):
        raise InvalidOption(f"{file} is no encoder of colour pictures")
    return tower


class Lesson:
    """What a training learns from, as `metric.loop.fit` asks for it: batches, and what is asked of their codes.

    rows: (n,) which of `crops` are for training. `extra`: what learns beside the net. Reads the teacher's codes and
    maps first, which may take hours.
    """

    def __init__(
        self, plan: Plan, tower: identity.Tower, crops: Crops, rows: np.ndarray, on_progress: Progress | None
    ) -> None:
        self.plan, self.tower, self.crops, self.rows = plan, tower, crops, rows
        self.subjects = crops.subjects[rows]
        if not len(rows):
            raise InvalidOption("no sample is left for training: every 20th subject, by name, is held out")
        length = tower.architecture.code_length
        self.criterion: nn.Module | None = None
        self.sampler: SubjectsTimesSamples | None = None
        if plan.labelled:
            self.sampler = SubjectsTimesSamples(
                self.subjects,
                subjects_per_batch=plan.batch // plan.per_subject,
                samples_per_subject=plan.per_subject,
                seed=plan.seed,
            )
            self.criterion = losses.objective(
                plan.loss,
                classes=len(crops.names),
                code_length=length,
                miner=plan.miner,
                margin=plan.margin,
                seed=plan.seed,
            ).to(plan.device)
            if plan.init and isinstance(self.criterion, losses.ArcFace):
                self.criterion.start(*_codes_of(tower, crops, rows, on_progress))
        self.targets: _Targets | None = None
        self.hinted: Hints | None = None
        if plan.teacher:
            codes = distillation.teacher_codes(crops.images, plan.teacher, cache=plan.cache, on_progress=on_progress)
            self.targets = _Targets(codes[rows], length)
        if plan.teacher and plan.hints and plan.cache:
            with seeded(plan.seed):
                maps = teacher_maps(crops.images, plan.teacher, plan.hints, cache=plan.cache, on_progress=on_progress)
                self.hinted = Hints(tower, maps).to(plan.device)
            self.hinted.solve(tower, crops.images, rows[:: max(1, len(rows) // SOLVED)])
        self.extra = nn.ModuleList(part for part in (self.criterion, self.hinted) if part is not None)

    def deciding(self) -> dict[str, Any]:
        """The options and the data that decide what comes out: what a resumed run must have in common."""
        made = self.tower.architecture
        return self.plan.deciding() | {
            "widths": made.widths,
            "blocks": made.blocks,
            "margin": getattr(self.criterion, "margin", None),
            "teacher": hashlib.sha256(self.plan.teacher.read_bytes()).hexdigest() if self.plan.teacher else None,
            "training samples": len(self.rows),
            "people": len(self.crops.names),
        }

    def listening(self) -> AbstractContextManager[None]:
        """Within it, hints see what passes through the net."""
        return self.hinted.listening(self.tower) if self.hinted is not None else nullcontext()

    def batch(self, step: int, generator: torch.Generator) -> tuple[Tensor, Context]:
        """Augmented views (b, 3, size, size), and their places among the training samples, subjects and moves."""
        plan = self.plan
        if self.sampler is None:
            index = shuffled(len(self.rows), plan.batch, step, plan.seed)
        else:
            index = self.sampler.batch(step)
        moves = draw_moves(len(index), generator)
        images = torch.from_numpy(self.crops.images[self.rows[index]]).to(plan.device)
        views = augment(images, generator=generator, size=plan.size_at(step), moves=moves)
        context = torch.from_numpy(index), torch.from_numpy(self.subjects[index]), moves
        return views.contiguous(memory_format=torch.channels_last), context

    def objective(self, codes: Tensor, context: Context, generator: torch.Generator) -> Terms:
        """The loss on labels, the distance to the teacher's codes and `HINT_WEIGHT` times that to its maps, added."""
        index, subjects, moves = context
        total, info = codes.sum() * 0, {}
        if self.criterion is not None:
            terms = self.criterion(codes, subjects.to(codes.device), generator=generator)
            total, info = total + terms.loss, dict(terms.info)
        if self.targets is not None:
            distilled = distillation.distillation(codes, *(part.to(codes.device) for part in self.targets.of(index)))
            total, info["distillation"] = total + distilled, float(distilled.detach())
        if self.hinted is not None:
            errors = self.hinted(torch.from_numpy(self.rows)[index], moves)
            total = total + HINT_WEIGHT * errors.sum()
            info |= {f"hint_{name}": float(one) for name, one in zip(self.plan.hints, errors.detach(), strict=True)}
        return Terms(total, info)


def inputs(crops: Crops, rows: np.ndarray, stage: str, on_progress: Progress | None, *, batch: int) -> Iterator[Tensor]:
    """These crops as a net's input (b, 3, size, size), channels last in memory, `batch` at a time; those that are dealt
    with are told as progress of `stage`."""
    for first in range(0, len(rows), batch):
        x = to_input(torch.from_numpy(crops.images[rows[first : first + batch]]))
        yield x.contiguous(memory_format=torch.channels_last)
        if on_progress:
            on_progress(min(first + batch, len(rows)), len(rows), {"stage": stage})


@torch.no_grad()
def _codes_of(
    net: nn.Module, crops: Crops, rows: np.ndarray, on_progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Unit codes (n, d) of these crops as they are, and their subjects (n,)."""
    net.eval()
    device = next((weights.device for weights in net.parameters()), torch.device("cpu"))
    codes = [net(x.to(device)).float() for x in inputs(crops, rows, "codes", on_progress, batch=128)]
    return torch.cat(codes), torch.from_numpy(crops.subjects[rows])


class _Targets:
    """The teacher's codes of the training crops, whole and along their first `length` principal directions."""

    def __init__(self, codes: np.ndarray, length: int) -> None:
        self.teacher = torch.from_numpy(codes)
        self.targets = distillation.cut(codes, distillation.principal_directions(codes, length))

    def of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.targets[index], self.teacher[index]


def shuffled(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Indices of batch number `step` when every epoch is a new permutation of `count` samples."""
    per_epoch = max(1, count // batch)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.sort(order[place * batch : (place + 1) * batch])


@torch.no_grad()
def held_out_figures(net: nn.Module, strangers: Crops) -> dict[str, float]:
    """How the net tells people apart that it never saw: TAR at FAR 1e-2 and 1e-3 over all pairs, at full resolution.

    Empty where there is no mated or no non-mated pair: then there is nothing to count.
    """
    a, b = np.triu_indices(len(strangers), 1)
    mated = strangers.subjects[a] == strangers.subjects[b]
    if mated.all() or not mated.any():
        return {}
    codes, _ = _codes_of(net, strangers, np.arange(len(strangers)))
    cosine = (codes @ codes.T).cpu().numpy()[a, b]
    non_mated = np.sort(cosine[~mated])[::-1]
    return {
        f"held_out_tar@{far:g}": float((cosine[mated] > non_mated[int(far * len(non_mated))]).mean())
        for far in (1e-2, 1e-3)
    }
