"""`train_recognition`: it learns, goes on where it stopped, checks options first, never sees held-out people."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from likeness.errors import Collapse, InvalidOption, LikenessError, StorageError, UnknownName, WeightsError
from likeness.metric import heads, training
from likeness.metric.augment import to_input
from likeness.metric.data import Crops, held_out, load_crops
from likeness.metric.distillation import distillation, teacher_codes
from likeness.metric.loop import CollapseAlarm
from likeness.metric.losses import ArcFace, Terms
from likeness.metric.training import held_out_figures, shuffled, train_recognition
from likeness.nets import identity, weights_file

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
    for loss in ("triplet", "arcface"):
        with pytest.raises(InvalidOption, match="unlabelled"):
            train_recognition(people, out=tmp_path / "enc.safetensors", loss=loss, unlabelled=(str(people / "00"),))


def test_no_more_samples_are_counted_than_were_seen(people: Path, tmp_path: Path) -> None:
    """Distillation takes each crop once an epoch, and an epoch may be smaller than the batch."""
    from likeness.nets.export import export_onnx

    teacher = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(48, 130, bias=False)).eval()
    export_onnx(teacher, tmp_path / "teacher.onnx", example_shape=(2, 3, 112, 112))
    few = tmp_path / "few"
    for name in ("00", "01"):
        shutil.copytree(people / name, few / name)
    options = SMALL | {"steps": 2, "batch": 64}
    out = tmp_path / "enc.safetensors"
    made = train_recognition(few, out=out, loss="distillation", teacher=tmp_path / "teacher.onnx", **options)
    assert made.samples == 2 * 3  # 01's photographs; 00 is held out


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "tripplet"}, "did you mean 'triplet'"),
        ({"loss": "distilation"}, "did you mean 'distillation'"),
        ({"loss": "distillation"}, "needs a teacher"),
        ({"hints": ("map",)}, "hints need a teacher"),
        ({"miner": "semihard"}, "did you mean 'semi-hard'"),
        ({"margin": 0.0}, "margin is 0.0"),
        ({"margin": 2.0, "loss": "arcface"}, "angular margin"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"steps": 0}, "steps is 0"),
        ({"every": 0}, "every is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"batch": 1}, "batch is 1"),
        ({"per_subject": 0}, "per_subject is 0"),
        ({"per_subject": 1}, "per_subject must be at least 2"),
        ({"batch": 130}, "per_subject must be at least 2 and divide batch"),
        ({"batch": 4}, "1 subjects in a batch"),
        ({"sizes": (64,), "shares": (0.5, 0.5)}, "must pair up"),
        ({"sizes": (64, 112), "shares": (-1.0, 2.0)}, "must pair up"),
        ({"sizes": (8,), "shares": (1.0,)}, "size 8 is too small for a net of 3 stages"),
        ({"widths": (0, 4), "blocks": (1, 1)}, "widths"),
        ({"widths": (4, 4)}, "same stages"),
        ({"init": Path("nowhere.safetensors")}, "nowhere.safetensors"),
        ({"teacher": Path("nowhere.onnx")}, "nowhere.onnx"),
    ],
)
def test_options_are_checked_before_anything_is_read(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LikenessError, match=message):
        train_recognition(tmp_path / "no such folder", out=tmp_path / "enc.safetensors", **wrong)


def test_a_folder_for_the_result_is_made_or_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        train_recognition(tmp_path / "no such folder", out=tmp_path / "file" / "enc.safetensors")


@pytest.mark.parametrize(("loss", "margin"), [("triplet", 0.2), ("contrastive", 1.0), ("arcface", 0.5)])
def test_every_loss_has_its_own_margin(people: Path, loss: str, margin: float) -> None:
    """The formula's default reaches the objective that trains; another one overrules it."""
    for given, expected in ((None, margin), (0.3, 0.3)):
        assert lesson(people, loss=loss, margin=given).deciding()["margin"] == expected


def lesson(people: Path, *, first_row: int = 0, **changes: Any) -> training.Lesson:
    options: dict[str, Any] = {
        "loss": "triplet", "miner": "semi-hard", "margin": None, "teacher": None, "hints": (), "init": None,
        "widths": (4, 8), "blocks": (1, 1), "sizes": (32,), "shares": (1.0,), "steps": 2, "batch": 16,
        "per_subject": 4, "optimizer": "muon", "lr": 1e-3, "warmup": 0, "every": 1, "seed": 0, "precision": "fp32",
        "device": "cpu", "cache": None,
    }  # fmt: skip
    plan = training.Plan(**(options | changes))
    crops = training.load_crops(people)
    return training.Lesson(plan, training._tower(plan), crops, np.arange(first_row, len(crops)), None)


def test_fine_tuning_by_arcface_starts_at_the_mean_codes_of_the_subjects(people: Path, tmp_path: Path) -> None:
    shape = identity.Architecture(widths=(4, 8), blocks=(1, 1))
    identity.save(identity.Tower(shape), tmp_path / "enc.safetensors")
    learner = lesson(people, loss="arcface", init=tmp_path / "enc.safetensors")
    net, (criterion,) = identity.load(tmp_path / "enc.safetensors"), learner.extra
    x = to_input(torch.from_numpy(learner.crops.images))
    with torch.no_grad():
        codes = net(x).numpy()
    for subject in np.unique(learner.subjects):
        mean = codes[learner.subjects == subject].mean(0)
        assert np.abs(criterion.weight[subject].detach().numpy() - mean / np.linalg.norm(mean)).max() < 1e-5
    fresh = lesson(people, loss="arcface").criterion
    assert isinstance(fresh, ArcFace) and not torch.equal(fresh.weight, criterion.weight)  # type: ignore[arg-type]


def test_resolutions_come_in_their_shares_of_the_steps(people: Path) -> None:
    plan = lesson(people, sizes=(32, 48, 64), shares=(0.5, 0.3, 0.2), steps=10).plan
    assert [plan.size_at(step) for step in range(12)] == [32] * 5 + [48] * 3 + [64] * 4


def test_the_parts_of_the_loss_are_added(people: Path) -> None:
    """The loss on labels, the distillation, and half the error of each hint; hints are asked for rows of all crops."""
    learner = lesson(people, first_row=7)
    codes = nn.functional.normalize(torch.randn(8, 128, generator=torch.Generator().manual_seed(0)))
    teacher = nn.functional.normalize(torch.randn(8, 200, generator=torch.Generator().manual_seed(1)))
    targets = nn.functional.normalize(teacher[:, :128])
    index, subjects, moves = torch.tensor([9, 4, 0, 2, 7, 1, 3, 5]), torch.arange(8) // 2, torch.zeros(8, 2, 3)
    generator = torch.Generator().manual_seed(0)
    labelled = learner.objective(codes, (index, subjects, moves), generator)
    expected = learner.criterion(codes, subjects, generator=generator)  # type: ignore[misc]
    assert (float(labelled.loss), labelled.info) == (pytest.approx(float(expected.loss)), expected.info)
    asked: list[list[int]] = []

    def hinted(rows: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        assert moved is moves
        return torch.tensor([0.25, 3.0])

    learner.plan = SimpleNamespace(hints=("low", "high"))  # type: ignore[assignment]
    learner.hinted, learner.targets = hinted, SimpleNamespace(of=lambda index: (targets, teacher))  # type: ignore[assignment]
    whole = learner.objective(codes, (index, subjects, moves), generator)
    distilled = float(distillation(codes, targets, teacher))
    assert float(whole.loss) == pytest.approx(float(expected.loss) + distilled + 0.5 * 3.25, rel=1e-6)
    assert whole.info == expected.info | {"distillation": pytest.approx(distilled), "hint_low": 0.25, "hint_high": 3.0}
    assert asked == [[row + 7 for row in index.tolist()]]


def test_targets_are_the_teachers_codes_of_the_training_crops(people: Path, tmp_path: Path) -> None:
    from likeness.nets.export import export_onnx

    torch.manual_seed(0)
    net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(147, 130)).eval()
    export_onnx(net, tmp_path / "teacher.onnx", example_shape=(2, 3, 112, 112))
    learner = lesson(people, first_row=50, loss="distillation", teacher=tmp_path / "teacher.onnx")
    codes = teacher_codes(learner.crops.images, tmp_path / "teacher.onnx")[50:]
    targets, whole = learner.targets.of(torch.tensor([3, 0, 21]))  # type: ignore[union-attr]
    np.testing.assert_allclose(whole, codes[[3, 0, 21]], atol=1e-6)
    directions = np.linalg.svd(codes.astype(np.float64), full_matrices=False)[2][:128].T
    short = codes @ directions / np.linalg.norm(codes @ directions, axis=1, keepdims=True)
    assert targets.shape == (3, 128)
    np.testing.assert_allclose(targets @ targets.T, short[[3, 0, 21]] @ short[[3, 0, 21]].T, atol=1e-4)


def test_held_out_figures_by_hand() -> None:
    """The share of mated pairs more alike than all but 1 % and 0.1 % of the pairs of strangers."""

    class FirstPixel(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(x[:, :, 0, 0])

    rng = np.random.default_rng(0)
    subjects = np.arange(300) // 3
    colours = np.repeat(rng.integers(30, 225, (100, 3)), 3, axis=0) + rng.integers(-30, 30, (300, 3))
    images = colours.astype(np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    found = held_out_figures(FirstPixel(), Crops(images, subjects, ()))
    codes = images[:, 0, 0].astype(np.float64) / 127.5 - 1
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for i in range(300):
        for j in range(i):
            kinds[bool(subjects[i] == subjects[j])].append(float(codes[i] @ codes[j]))
    strangers = sorted(kinds[False], reverse=True)
    for rate, name in ((0.01, "held_out_tar@0.01"), (0.001, "held_out_tar@0.001")):
        threshold = strangers[int(rate * len(strangers))]
        share = np.mean([cosine > threshold for cosine in kinds[True]])
        assert found[name] == pytest.approx(share, abs=0.01)
    assert 0.05 < found["held_out_tar@0.001"] + 0.05 < found["held_out_tar@0.01"] < 0.95


def test_the_training_crops_are_not_copied(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be a mapped file larger than the memory: only the few held-out ones are read as a whole."""
    asked: list[int] = []
    where = Crops.where
    monkeypatch.setattr(Crops, "where", lambda self, keep: asked.append(len(self.images[keep])) or where(self, keep))
    options = SMALL | {"steps": 1, "sizes": (32,), "shares": (1.0,)}
    train_recognition(people, out=tmp_path / "enc.safetensors", cache=tmp_path, **options)
    assert asked == [9]


def test_a_checkpoint_belongs_to_its_options(people: Path, tmp_path: Path) -> None:
    """Another loss, learning rate, ... is refused by name; the precision found at first is kept; old files go on."""
    file, out = tmp_path / "checkpoint.safetensors", tmp_path / "deeper" / "enc.safetensors"
    settings = SMALL | {"steps": 2, "sizes": (32,), "shares": (1.0,), "checkpoint": tmp_path}
    train_recognition(people, out=out, **settings)
    written = out.read_bytes()
    tensors, metadata = weights_file.read(file)
    assert metadata["precision"] == "fp32" and json.loads(metadata["options"])["loss"] == "triplet"
    others: dict[str, Any] = {
        "steps": 3, "lr": 1e-4, "seed": 1, "loss": "contrastive", "optimizer": "adamw", "sizes": (48,), "batch": 8,
        "precision": "bf16", "warmup": 1, "miner": "random", "margin": 0.3, "widths": (4, 12),
    }  # fmt: skip
    for name, value in others.items():
        with pytest.raises(WeightsError, match=rf"other options \(.*{name if name != 'lr' else 'lr, peak'}"):
            train_recognition(people, out=out, **(settings | {name: value}))
    out.unlink()  # a finished run gives its result again
    result = train_recognition(people, out=out, **(settings | {"precision": "auto", "every": 7}))
    assert out.read_bytes() == written and result.figures
    weights_file.write(file, tensors, {"step": "1"})
    train_recognition(people, out=out, **settings)
    assert weights_file.read(file)[1]["step"] == "2"
    for wrong in ({"step": "one"}, {"options": "1"}, {}):
        weights_file.write(file, tensors, ({"step": "1"} | wrong) if wrong else {"nothing": ""})
        with pytest.raises(WeightsError, match="damaged"):
            train_recognition(people, out=out, **settings)
    weights_file.write(file, {**tensors, "net.code.bias": torch.zeros(3)}, {"step": "1"})
    with pytest.raises(WeightsError, match="code.bias"):
        train_recognition(people, out=out, **settings)
    file.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        train_recognition(people, out=out, **settings)


def test_a_run_goes_on_in_the_precision_it_began_with(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the probe, on a busier day, would choose another."""
    settings = SMALL | {"sizes": (32,), "shares": (1.0,), "checkpoint": tmp_path, "every": 1, "steps": 3}
    seen: list[str] = []

    class Stop(Exception):
        pass

    def note(done: int, total: int, info: dict) -> None:
        if "loss" in info:
            seen.append(info["precision"])
            if done == 1:
                raise Stop

    for faster in (True, False):
        monkeypatch.setattr("likeness.metric.loop._faster_in_bfloat16", lambda *_, answer=faster: answer)
        try:
            train_recognition(
                people, out=tmp_path / "e.safetensors", on_progress=note, **(settings | {"precision": "auto"})
            )
        except Stop:
            pass
    assert seen == ["bf16"] * 3


def test_few_people_leave_no_figures(people: Path, tmp_path: Path) -> None:
    """Of five people one is held out: no stranger to compare with. That is no error, and JSON can say it."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("01", "02", "03", "04", "05"):
        (few / name).symlink_to(people / name)
    options = SMALL | {"steps": 1, "batch": 4, "per_subject": 2, "sizes": (32,), "shares": (1.0,)}
    result = train_recognition(few, out=tmp_path / "enc.safetensors", **options)
    assert result.figures == {} and json.loads(json.dumps(result.to_dict(), allow_nan=False))["steps"] == 1
    net = identity.load(tmp_path / "enc.safetensors")
    images = np.zeros((3, 112, 112, 3), np.uint8)
    for subjects in ([0, 1, 2], [0, 0, 0]):
        assert held_out_figures(net, Crops(images, np.array(subjects), ("a", "b", "c"))) == {}
    assert held_out_figures(net, Crops(images[:0], np.zeros(0, np.int64), ())) == {}
    assert held_out_figures(net, Crops(images, np.array([0, 0, 1]), ("a", "b"))).keys() == {
        "held_out_tar@0.01", "held_out_tar@0.001"
    }  # fmt: skip


def test_the_pair_head_is_kept_beside_the_net(people: Path, tmp_path: Path) -> None:
    options = SMALL | {"steps": 3, "sizes": (32,), "shares": (1.0,), "lr": 1e-2}
    result = train_recognition(people, out=tmp_path / "enc.safetensors", loss="pair-logistic", **options)
    assert result.head == str(tmp_path / "enc.head.safetensors")
    head = heads.load(tmp_path / "enc.head.safetensors")
    assert head.kind == "absolute" and float(head.weight.detach().abs().sum()) > 0
    codes = identity.load(tmp_path / "enc.safetensors")(torch.zeros(2, 3, 112, 112))
    assert head.predict(codes[:1], codes[1:]).shape == (1,)


def test_what_the_teacher_lacks_is_said_before_it_works(people: Path, tmp_path: Path) -> None:
    from likeness.nets.export import export_onnx

    net = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(48, 130)).eval()
    export_onnx(net, tmp_path / "teacher.onnx", example_shape=(2, 3, 112, 112))
    options = SMALL | {"teacher": tmp_path / "teacher.onnx", "cache": tmp_path, "hints": ("nosuch",)}
    with pytest.raises(UnknownName, match="nosuch"):
        train_recognition(tmp_path / "no such folder", out=tmp_path / "enc.safetensors", **options)


def test_every_epoch_shows_every_sample_once() -> None:
    for epoch in range(3):
        seen = np.concatenate([shuffled(20, 5, epoch * 4 + place, seed=1) for place in range(4)])
        assert sorted(seen) == list(range(20))
    assert not np.array_equal(shuffled(20, 5, 0, 1), shuffled(20, 5, 4, 1))


def test_what_training_sees(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a held-out person, in any batch; and views are moved as their hints will be."""
    crops = load_crops(people)
    held = {image.tobytes() for image in crops.images[held_out(crops.subjects)]}
    seen: set[bytes] = set()
    moved: list[torch.Tensor] = []
    true_augment = training.augment

    def watched(images: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.update(image.tobytes() for image in images.numpy())
        moved.append(options["moves"])
        return true_augment(images, **options)

    contexts: list[torch.Tensor] = []
    true_objective = training.Lesson.objective

    def objective_of(self: training.Lesson, codes: torch.Tensor, context: Any, generator: torch.Generator) -> Terms:
        contexts.append(context[2])
        return true_objective(self, codes, context, generator)

    monkeypatch.setattr(training, "augment", watched)
    monkeypatch.setattr(training.Lesson, "objective", objective_of)
    train_recognition(people, out=tmp_path / "enc.safetensors", **(SMALL | {"steps": 30, "every": 30}))
    assert len(seen) > 0.9 * (len(crops) - len(held))
    assert not seen & held
    assert len(contexts) == 30
    assert all(any(torch.equal(context, one) for one in moved) for context in contexts)


def test_the_collapse_alarm_is_on(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a floor above every possible distance it must ring at once."""
    monkeypatch.setattr(training, "CollapseAlarm", lambda: CollapseAlarm(floor=10, patience=2))
    with pytest.raises(Collapse, match="met in one point"):
        train_recognition(people, out=tmp_path / "enc.safetensors", **(SMALL | {"steps": 8}))
