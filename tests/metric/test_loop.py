"""The training loop: schedule, collapse alarm, precision."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import Collapse
from likeness.metric.loop import CollapseAlarm, Schedule, _optimizer, fit
from likeness.metric.losses import Terms, objective
from likeness.nets import identity


def test_the_schedule_is_a_warm_up_and_a_cosine() -> None:
    schedule = Schedule(1000, peak=1.0, warmup=100, floor=0.0)
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(99) == pytest.approx(1)
    assert schedule(550) == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.5)))
    assert schedule(1000) == pytest.approx(0, abs=1e-12)
    kept = Schedule(1000, peak=2.0, warmup=100, floor=0.1)  # the cosine goes from the peak down to a tenth of it
    assert kept(100) == pytest.approx(2)
    assert kept(325) == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi / 4))))
    assert kept(1000) == kept(2000) == pytest.approx(0.2)
    assert Schedule(10, peak=2.0, warmup=0)(0) == 2


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


def test_the_alarm_counts_low_steps_in_a_row() -> None:
    together, apart = torch.ones(4, 3) / 3**0.5, torch.eye(3)
    alarm = CollapseAlarm(patience=3)
    for codes in (together, together, apart, together, together):
        alarm.watch(codes, 0)
    with pytest.raises(Collapse, match="at step 7 .* low for 3 steps"):
        alarm.watch(together, 7)


class Weighed(nn.Module):
    """One matrix, one vector, and a normalisation with a counter of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.line(x))


def followed(steps: int, *, strength: float = 1.0, seed: int = 0, **options: Any) -> dict[str, list]:
    """Train `Weighed` and write down what every step left: weights, gradients, what was drawn, what was reported."""
    net, seen = Weighed(), {"drawn": [], "weights": [], "gradients": [], "infos": []}
    seen["start"] = [value.clone() for value in net.state_dict().values()]

    def batch(step: int, generator: torch.Generator) -> tuple[torch.Tensor, None]:
        seen["drawn"].append(torch.rand(3, generator=generator).tolist())
        return torch.randn(8, 4, generator=generator), None

    def note(done: int, total: int, info: dict) -> None:
        seen["weights"].append([value.clone() for value in net.state_dict().values()])
        seen["gradients"].append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        seen["infos"].append((done, total, info))

    averaged = fit(
        net,
        batch,
        lambda codes, context, generator: Terms(strength * (codes - 1).pow(4).sum(), {"own": 7.0}),
        schedule=Schedule(steps, 0.1, warmup=2),
        seed=seed,
        precision="fp32",
        on_progress=note,
        **options,
    )
    assert not averaged.training
    seen["averaged"] = list(averaged.state_dict().values())
    return seen


@pytest.mark.parametrize("average", [0.999, 0.2])
def test_the_moving_average_by_hand(average: float) -> None:
    """Young averages forget faster: step s keeps (1 + s) / (10 + s) of what was, never more than `average`."""
    seen = followed(5, average=average)
    for place, found in enumerate(seen["averaged"]):
        mean = seen["start"][place].double()
        for step, weights in enumerate(seen["weights"]):
            keep = min(average, (1 + step) / (10 + step))
            mean = keep * mean + (1 - keep) * weights[place].double()
        if found.is_floating_point():
            torch.testing.assert_close(found.double(), mean, rtol=1e-5, atol=1e-6)
        else:
            assert found == seen["weights"][-1][place] == 5


def test_large_gradients_are_cut_to_a_length_of_five() -> None:
    for strength, expected in ((1e6, 5.0), (1e-3, None)):
        for gradients in followed(3, strength=strength)["gradients"]:
            length = float(torch.cat([g.flatten() for g in gradients]).norm())
            assert length == pytest.approx(expected, rel=1e-4) if expected else length < 4


def test_matrices_decay_and_vectors_do_not() -> None:
    """Without any gradient's push, what is left of a step is the decay: lr * weight_decay of a matrix."""
    net = Weighed()
    optimizer = _optimizer("adamw", net, 0.1, 0.5)
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, new in zip(before, net.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5) if old.ndim > 1 else old)


def test_every_step_draws_anew_and_every_seed_too() -> None:
    first, again, other = (followed(4, seed=seed)["drawn"] for seed in (0, 0, 1))
    assert first == again
    assert len({tuple(one) for one in first + other}) == 8


def test_what_is_reported() -> None:
    infos = followed(4)["infos"]
    assert [(done, total) for done, total, _ in infos] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    schedule = Schedule(4, 0.1, warmup=2)
    for step, (done, total, info) in enumerate(infos):
        assert info["lr"] == schedule(step) and info["own"] == 7 and np.isfinite(info["loss"])
        assert info["eta_s"] == pytest.approx((total - done) / info["steps_per_s"])
        assert info["steps_per_s"] > 0


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
