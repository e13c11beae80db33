"""The training loop: schedule, collapse alarm, precision."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import Collapse
from likeness.metric.loop import CollapseAlarm, Schedule, fit
from likeness.metric.losses import Terms, objective
from likeness.nets import identity


def test_the_schedule_is_a_warm_up_and_a_cosine() -> None:
    schedule = Schedule(1000, peak=1.0, warmup=100, floor=0.0)
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(99) == pytest.approx(1)
    assert schedule(550) == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.5)))
    assert schedule(1000) == pytest.approx(0, abs=1e-12)


def run_on_random_signals(
    net: nn.Module, loss: Any, steps: int, alarm: CollapseAlarm | None, **options: Any
) -> nn.Module:
    """Train on 1-D signals: the loop knows nothing of images."""
    base = torch.randn(16, 1, 32, generator=torch.Generator().manual_seed(0))

    def batch(step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        pick = torch.randperm(16, generator=generator)[:8].repeat_interleave(4)
        return base[pick] + 0.3 * torch.randn(32, 1, 32, generator=generator), pick

    options = {"schedule": Schedule(steps, 3e-3, warmup=5), "precision": "fp32"} | options
    return fit(net, batch, lambda codes, subjects, generator: loss(codes, subjects), alarm=alarm, **options)


def signal_tower(seed: int = 0) -> identity.Tower:
    torch.manual_seed(seed)
    return identity.Tower(
        identity.Architecture(spatial_dims=1, in_channels=1, size=32, widths=(8, 16), blocks=(1, 1), code_length=16)
    )


class Squeeze(nn.Module):
    """Pulls every code to one point: what a badly mined triplet run ends in."""

    def forward(self, codes: torch.Tensor, subjects: torch.Tensor) -> Terms:
        return Terms((1 - (codes * codes[:1].detach()).sum(1)).mean() - codes[:, 0].mean())


def test_the_collapse_alarm_stops_a_collapsed_run() -> None:
    with pytest.raises(Collapse, match="one point") as caught:
        run_on_random_signals(
            signal_tower(), Squeeze(), 200, CollapseAlarm(patience=50), schedule=Schedule(400, 5e-2, warmup=5)
        )
    assert "smaller learning rate" in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_the_collapse_alarm_is_silent_in_good_runs(seed: int) -> None:
    run_on_random_signals(
        signal_tower(seed), objective("triplet", classes=16, code_length=16), 120, CollapseAlarm(patience=10)
    )


def test_the_alarm_measures_the_mean_squared_distance() -> None:
    codes = torch.nn.functional.normalize(torch.randn(9, 5, dtype=torch.float64), dim=1)
    by_hand = np.mean([float((codes[i] - codes[j]).square().sum()) for i in range(9) for j in range(9) if i != j])
    assert CollapseAlarm().watch(codes, 0) == pytest.approx(by_hand, abs=1e-10)


def test_precision_is_probed_or_set() -> None:
    infos: list[dict] = []
    for precision in ("auto", "bf16"):
        run_on_random_signals(
            signal_tower(),
            objective("triplet", classes=16, code_length=16),
            2,
            None,
            precision=precision,
            on_progress=lambda done, total, info: infos.append(info),
        )
    assert infos[0]["precision"] in ("fp32", "bf16")
    assert infos[-1]["precision"] == "bf16"
