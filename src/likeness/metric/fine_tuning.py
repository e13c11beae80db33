"""The last stages of an encoder, fine-tuned on people whose names are known.

What comes before them stays as it is, so each photograph is looked at twice (as it is and mirrored), its inner maps are
kept, and a step costs a twentieth of one of the whole net. Augmented views would teach a few minutes less than they
cost: of named people there are few photographs, and the net knows light and blur already.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidOption, at_least
from ..nets import identity
from ..progress import Progress
from ..samples.files import writable
from .data import Align, Crops, held_out, load_crops
from .loop import CollapseAlarm, Schedule, check_fit, fit
from .losses import ArcFace, Terms
from .training import MOST_STRANGERS, SIZE, Trained, held_out_figures, inputs, shuffled, tower_of_pictures

WARMUP = 30  # steps


def train_fine_tuning(
    folder: Path,
    *,
    out: Path,
    init: Path,
    stages: int = 1,
    margin: float = 0.2,
    scale: float = 20.0,
    steps: int = 300,
    batch: int = 128,
    lr: float = 3e-4,
    seed: int = 0,
    precision: str = "auto",
    cache: Path | None = None,
    align: Align | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Fine-tune the last stages of a trained encoder by ArcFace (Deng 2019) on people whose names are known.

    folder: people/NAME/*.jpg as for `train recognition`; every 20th person is held out.
    out: the safetensors file to write.
    init: the encoder to start from, best with the last layer of `train discriminant`.
    stages: how many learn, from the last on, with all that follows; the others stay as they are.
    margin: radians between subjects.
    scale: of the cosines; the larger, the less what is right already counts.
    steps: optimiser steps.
    batch: crops per step.
    lr: peak learning rate of AdamW.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a short probe finds faster.
    cache: a folder for decoded crops.
    align: as for `train_recognition`.

    Raises InvalidOption for options that do not fit or fewer than two people, WeightsError where `init` is no encoder,
    Collapse.
    """
    schedule = Schedule(steps, lr, min(WARMUP, steps // 4))
    check_fit("adamw", precision, 1, schedule, seed)
    at_least(1, stages=stages)
    at_least(2, batch=batch)
    ArcFace(2, 2, margin=margin, scale=scale)  # refuses what it cannot take before anything is read
    tower = tower_of_pictures(Path(init))
    if tower.architecture.size != SIZE:
        raise InvalidOption(f"{init} takes crops of {tower.architecture.size} pixels, not {SIZE}")
    if stages > len(tower.stages):
        raise InvalidOption(f"stages is {stages}, but the net has {len(tower.stages)}")
    out = writable(out)
    crops = load_crops(folder, align=align, size=SIZE, cache=cache, on_progress=on_progress)
    held = held_out(crops.subjects)
    rows = np.flatnonzero(~held)
    names, place = np.unique(crops.subjects[rows], return_inverse=True)
    if len(names) < 2:
        raise InvalidOption(f"{folder} has {len(names)} people to train on; two are needed to tell them apart")
    subjects = torch.from_numpy(place)
    late = _Late(tower.architecture)
    late.load_state_dict(tower.state_dict())
    late.eval()
    late.stages = nn.Sequential(*list(late.stages)[-stages:])
    maps = _maps(tower.stages[:-stages], crops, rows, on_progress)
    criterion = ArcFace(len(names), tower.architecture.code_length, margin=margin, scale=scale, seed=seed)
    criterion.start(_codes(late, maps), subjects.repeat(2))

    def draw(step: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor]]:
        index = torch.from_numpy(shuffled(len(rows), batch, step, seed))
        mirrored = torch.randint(2, (len(index),), generator=generator)
        x = maps[index + mirrored * len(rows)].float()
        return x.contiguous(memory_format=torch.channels_last), (subjects[index],)

    def objective(codes: Tensor, context: tuple[Tensor, ...], generator: torch.Generator) -> Terms:
        return criterion(codes, context[0])

    averaged = fit(
        late,
        draw,
        objective,
        schedule=schedule,
        extra=criterion,
        average=0.98,
        seed=seed,
        precision=precision,
        alarm=CollapseAlarm(),
        on_progress=on_progress,
    )
    assert isinstance(averaged, identity.Tower)
    tower.stages = nn.Sequential(*list(tower.stages)[:-stages], *averaged.stages)
    tower.whole, tower.norm, tower.code = averaged.whole, averaged.norm, averaged.code
    identity.save(tower, out)
    strangers = crops.where(np.flatnonzero(held)[:MOST_STRANGERS])
    return Trained(str(out), steps, steps * min(batch, len(rows)), held_out_figures(tower, strangers), crops.skipped)


class _Late(identity.Tower):
    """The tower after its first stages: takes their maps. Batch norms go by the statistics that they have, as those of
    a few people would be worse."""

    def train(self, mode: bool = True) -> _Late:
        super().train(False)
        return self


@torch.no_grad()
def _maps(first: nn.Module, crops: Crops, rows: np.ndarray, on_progress: Progress | None, *, batch: int = 64) -> Tensor:
    """What the stages that stay make of these crops, and after them of their mirror images: (2 n, c, *map) float16."""
    found: dict[bool, list[Tensor]] = {False: [], True: []}
    for x in inputs(crops, rows, "maps", on_progress, batch=batch):
        for mirrored, own in found.items():
            view = x.flip(3).contiguous(memory_format=torch.channels_last) if mirrored else x
            own.append(first(view).half().contiguous())
    return torch.cat(found[False] + found[True])


@torch.no_grad()
def _codes(late: nn.Module, maps: Tensor) -> Tensor:
    return torch.cat([late(part.float()) for part in maps.split(256)])
