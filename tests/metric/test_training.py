"""The training loop and `train_recognition`: exact resume, collapse alarm, schedule, held-out people, several
processes.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from likeness.errors import Collapse, InvalidOption
from likeness.metric.data import held_out, load_crops
from likeness.metric.loop import CollapseAlarm, Schedule, fit
from likeness.metric.losses import Terms, objective
from likeness.metric.training import shuffled, train_recognition
from likeness.nets import identity


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 made-up people, 3 noisy crops each: a colour pattern per person."""
    folder, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for subject in range(41):
        pattern = rng.integers(40, 215, (4, 4, 3)).repeat(28, 0).repeat(28, 1)
        (folder / f"{subject:02}").mkdir()
        for take in range(3):
            noisy = np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{subject:02}" / f"{take}.png")
    return folder


SMALL: dict[str, Any] = {
    "widths": (4, 8),
    "blocks": (1, 1),
    "sizes": (32, 48),
    "shares": (0.5, 0.5),
    "batch": 16,
    "warmup": 2,
    "every": 4,
    "precision": "fp32",
}


def test_triplets_teach_to_tell_people_apart(people: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict]] = []
    result = train_recognition(
        people,
        out=tmp_path / "enc.safetensors",
        **(SMALL | {"steps": 40, "every": 40, "sizes": (112,), "shares": (1.0,)}),
        on_progress=lambda *args: seen.append(args),
    )
    steps = [call for call in seen if "loss" in call[2]]
    assert steps[-1][0] == steps[-1][1] == 40
    assert {"loss", "active_share", "eta_s", "steps_per_s", "spread"} <= steps[-1][2].keys()
    assert result.to_dict()["figures"]["held_out_tar@0.01"] > 0.3  # patterns of colour: chance is 0.01
    assert identity.load(tmp_path / "enc.safetensors").architecture.widths == (4, 8)


@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [("triplet", "muon"), ("contrastive", "adamw"), ("pair-logistic", "muon"), ("arcface", "muon")],
)
def test_a_resumed_run_ends_in_the_same_bytes(people: Path, tmp_path: Path, loss: str, optimizer: str) -> None:
    class Stop(Exception):
        pass

    def stop_after_six(done: int, total: int, info: dict) -> None:
        if done == 6 and "loss" in info:
            raise Stop

    settings = SMALL | {"steps": 8, "loss": loss, "optimizer": optimizer}
    train_recognition(people, out=tmp_path / "whole.safetensors", **settings)
    with pytest.raises(Stop):
        train_recognition(
            people,
            out=tmp_path / "half.safetensors",
            checkpoint=tmp_path / "run",
            on_progress=stop_after_six,
            **settings,
        )
    train_recognition(people, out=tmp_path / "half.safetensors", checkpoint=tmp_path / "run", **settings)
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_distilling_a_teacher(people: Path, tmp_path: Path) -> None:
    """The student is pulled towards the teacher's similarities, with labels and without."""
    from likeness.nets.export import export_onnx

    torch.manual_seed(0)
    teacher = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(48, 130, bias=False)).eval()
    export_onnx(teacher, tmp_path / "teacher.onnx", example_shape=(2, 3, 112, 112))
    losses: list[float] = []
    train_recognition(
        people,
        out=tmp_path / "enc.safetensors",
        loss="distillation",
        teacher=tmp_path / "teacher.onnx",
        unlabelled=(str(people / "00"),),
        **(SMALL | {"steps": 40, "lr": 1e-2, "widths": (16, 32)}),
        on_progress=lambda done, total, info: losses.append(info["distillation"]) if "distillation" in info else None,
    )
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    with pytest.raises(InvalidOption, match="teacher"):
        train_recognition(people, out=tmp_path / "enc.safetensors", loss="distillation")


def test_hints_teach_the_inner_maps(people: Path, tmp_path: Path) -> None:
    """With hints the net's first map learns to predict the teacher's; a hint needs a teacher and a cache."""
    import onnx

    from likeness.nets.export import export_onnx

    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU(), nn.AvgPool2d(28), nn.Flatten())
    short, teacher = teacher.eval(), nn.Sequential(teacher, nn.Linear(6, 130)).eval()
    export_onnx(teacher, tmp_path / "teacher.onnx", example_shape=(2, 3, 112, 112))
    export_onnx(short, tmp_path / "short.onnx", example_shape=(2, 3, 112, 112))
    graph = onnx.load(str(tmp_path / "teacher.onnx")).graph
    name = next(node.output[0] for node in graph.node if node.op_type == "Relu")
    errors: list[float] = []
    settings = SMALL | {"steps": 60, "lr": 1e-2, "teacher": tmp_path / "teacher.onnx", "hints": [name]}
    train_recognition(
        people,
        out=tmp_path / "enc.safetensors",
        **settings,
        cache=tmp_path / "cache",
        on_progress=lambda done, total, info: errors.append(info[f"hint_{name}"]) if "loss" in info else None,
    )
    assert np.mean(errors[-5:]) < 0.7 * np.mean(errors[:3])
    with pytest.raises(InvalidOption, match="cache"):
        train_recognition(people, out=tmp_path / "enc.safetensors", **settings)
    with pytest.raises(InvalidOption, match="fewer than the 128"):
        train_recognition(people, out=tmp_path / "enc.safetensors", **(SMALL | {"teacher": tmp_path / "short.onnx"}))
    with pytest.raises(InvalidOption, match="optimizer"):
        train_recognition(people, out=tmp_path / "enc.safetensors", **(SMALL | {"optimizer": "sgd"}))


def test_options_are_checked(people: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="shares"):
        train_recognition(people, out=tmp_path / "enc.safetensors", sizes=(64,), shares=(0.5, 0.5))
    with pytest.raises(InvalidOption, match="precision"):
        train_recognition(people, out=tmp_path / "enc.safetensors", **(SMALL | {"precision": "fp8", "steps": 1}))
    Image.new("RGB", (60, 112)).save(tmp_path / "narrow.png")
    with pytest.raises(InvalidOption, match=r"narrow.png is 60x112"):
        load_crops(people, [tmp_path])


def test_held_out_people_are_never_trained_on(people: Path, tmp_path: Path) -> None:
    crops = load_crops(people, [people / "03"], cache=tmp_path)
    again = load_crops(people, [people / "03"], cache=tmp_path)
    assert np.array_equal(crops.images, again.images)
    mask = held_out(crops.subjects)
    train, held = crops.where(~mask), crops.where(mask)
    assert set(held.subjects) == {0, 20, 40}
    assert not set(train.subjects) & set(held.subjects)
    assert (train.subjects == -1).sum() == 3
    assert len(train) + len(held) == len(crops)


def test_every_epoch_shows_every_sample_once() -> None:
    for epoch in range(3):
        seen = np.concatenate([shuffled(20, 5, epoch * 4 + place, seed=1) for place in range(4)])
        assert sorted(seen) == list(range(20))
    assert not np.array_equal(shuffled(20, 5, 0, 1), shuffled(20, 5, 4, 1))


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


@pytest.mark.slow
def test_two_processes_train_one_net(tmp_path: Path) -> None:
    """Under torchrun's environment both processes end in the same weights, and the first one writes the checkpoint."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_training import run_on_random_signals, signal_tower\n"
        "from likeness.metric.losses import objective\n"
        "from pathlib import Path\n"
        "torch.distributed.init_process_group('gloo')\n"
        "net = run_on_random_signals(signal_tower(), objective('triplet', classes=16, code_length=16), 6, None, "
        "checkpoint=Path(sys.argv[1]), every=3)\n"
        "print('sum', float(sum(p.double().abs().sum() for p in net.parameters())))\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "run")],
            env=os.environ
            | {
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    sums = [worker.communicate(timeout=240)[0].splitlines()[-1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sums[0].startswith("sum") and sums[0] == sums[1]
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
