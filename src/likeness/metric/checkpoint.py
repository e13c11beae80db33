"""The state of a training in one file, so that an interrupted run goes on and ends in the uninterrupted one's bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..nets import weights_file


@dataclass(frozen=True)
class State:
    """What a training changes: the net, the moving average of its weights, what learns beside it, the optimiser."""

    net: nn.Module
    averaged: nn.Module
    extra: nn.Module
    optimiser: torch.optim.Optimizer


def store(file: Path, state: State, step: int, *, options: Mapping[str, Any], precision: str) -> None:
    """Write everything that a resumed run needs, with the options that it must repeat. Raises StorageError."""
    tensors = {f"net.{name}": value for name, value in state.net.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in state.averaged.state_dict().items()}
    tensors |= {f"extra.{name}": value for name, value in state.extra.state_dict().items()}
    for number, memory in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in memory.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"step": str(step), "options": json.dumps(dict(options)), "precision": precision}
    weights_file.write(file, tensors, metadata)


def restore(file: Path, state: State, *, options: Mapping[str, Any], precision: str = "auto") -> tuple[int, str]:
    """Load what `store` wrote; the step to go on with and the precision of the run, which goes on in it.

    precision: what is asked for now: "auto" takes the run's. Options or a precision that the file does not name (older
    files name none) are taken as given. Raises WeightsError where the file is damaged, does not fit the net, or
    belongs to a training with other options.
    """
    tensors, metadata = weights_file.read(file)
    ours = weights_file.fields(json.dumps(dict(options)))  # as the file would give them back
    with weights_file.damaged(file):
        step = int(metadata["step"])
        theirs = weights_file.fields(metadata.get("options", "{}"))
    was = metadata.get("precision", precision)
    differing = [name for name in theirs if theirs[name] != ours.get(name)]
    differing += ["precision"] * (precision not in ("auto", was))
    if differing:
        raise WeightsError(
            f"{file} belongs to a training with other options ({', '.join(sorted(differing))}); "
            "give the same ones, delete it, or name another checkpoint"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    weights_file.fill(state.net, part("net."), file)
    weights_file.fill(state.averaged, part("averaged."), file)
    weights_file.fill(state.extra, part("extra."), file)
    memory: dict[int, dict[str, Tensor]] = {}
    with weights_file.damaged(file):
        for key, value in part("optimiser.").items():
            number, name = key.split(".", 1)
            memory.setdefault(int(number), {})[name] = value
        state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": memory})
    return step, was
