"""The last stages, fine-tuned: what learns and what does not, and that people are told apart better."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likeness.errors import Collapse, InvalidOption, WeightsError
from likeness.metric import fine_tuning
from likeness.metric.data import held_out, load_crops
from likeness.metric.fine_tuning import _Late, _maps, train_fine_tuning
from likeness.nets import identity


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    identity.save(
        identity.Tower(identity.Architecture(widths=(8, 12, 16), blocks=(1, 1, 1), code_length=8)),
        tmp_path / "start.safetensors",
    )
    return tmp_path / "start.safetensors"


def views(people: Path) -> tuple[Tensor, np.ndarray]:
    crops = load_crops(people)
    rows = ~held_out(crops.subjects)
    return torch.from_numpy(crops.images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1, crops.subjects[rows]


def gap(net: identity.Tower, x: Tensor, subjects: np.ndarray) -> float:
    """Mean score of mated pairs less that of the others, in units of the others' deviation."""
    with torch.no_grad():
        codes = net(x).numpy()
    a, b = np.triu_indices(len(x), 1)
    scores, mated = (codes @ codes.T)[a, b], subjects[a] == subjects[b]
    return float((scores[mated].mean() - scores[~mated].mean()) / scores[~mated].std())


@pytest.mark.parametrize("stages", (1, 2, 3))
def test_the_last_stages_learn_and_nothing_else(people: Path, start: Path, tmp_path: Path, stages: int) -> None:
    seen: list[tuple[int, int, dict]] = []
    result = train_fine_tuning(
        people, init=start, out=tmp_path / "new" / "net.safetensors", stages=stages, steps=25, batch=64, lr=1e-3,
        on_progress=lambda *call: seen.append(call),
    )  # fmt: skip
    before, after = identity.load(start), identity.load(tmp_path / "new" / "net.safetensors")
    assert after.architecture == before.architecture
    frozen = tuple(f"stages.{i}." for i in range(3 - stages))
    for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        statistic = "running" in name or "tracked" in name
        assert torch.equal(old, new) == (name.startswith(frozen) or statistic), name
    x, subjects = views(people)
    x, subjects = torch.cat([x, x.flip(3)]), np.concatenate([subjects, subjects])
    assert gap(after, x, subjects) > 1.3 * gap(before, x, subjects)
    losses = [info["loss"] for _, _, info in seen if "loss" in info]
    assert len(losses) == result.steps == 25 and np.mean(losses[-5:]) < losses[0]
    assert result.samples == 25 * 64 and set(result.figures) == {"held_out_tar@0.01", "held_out_tar@0.001"}


def test_maps_are_kept_of_crops_and_then_of_their_mirror_images(people: Path, start: Path) -> None:
    tower, crops = identity.load(start), load_crops(people)
    x, _ = views(people)
    rows = np.flatnonzero(~held_out(crops.subjects))
    maps = _maps(tower.stages[:2], crops, rows, None, batch=50)
    late = _Late(tower.architecture)
    late.load_state_dict(tower.state_dict())
    late.stages = late.stages[2:]  # type: ignore[assignment]
    assert not any(module.training for module in late.train().modules())
    with torch.no_grad():
        expected = torch.cat([tower(x), tower(x.flip(3))])
        assert (late(maps.float()) - expected).abs().max() < 5e-3  # maps are float16


def test_the_same_seed_gives_the_same_bytes(people: Path, start: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_fine_tuning(people, init=start, out=tmp_path / name, steps=3, batch=16, seed=seed, precision="fp32")
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    few = train_fine_tuning(people, init=start, out=tmp_path / "d", steps=2, batch=1000)
    assert few.samples == 2 * len(views(people)[1])


def test_half_of_what_is_seen_is_mirrored(
    people: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Tensor] = []

    def fit(net: nn.Module, batch: Any, *_: Any, **__: Any) -> nn.Module:
        drawn.extend(batch(step, torch.Generator().manual_seed(step))[0] for step in range(20))
        return net

    monkeypatch.setattr(fine_tuning, "fit", fit)
    train_fine_tuning(people, init=start, out=tmp_path / "o", batch=16)
    x, _ = views(people)
    with torch.no_grad():
        plain = identity.load(start).stages[:2](x).flatten(1)
    nearest = [float((one[None] - plain).abs().amax(1).min()) for one in torch.cat(drawn).flatten(1)]
    share = np.mean([distance > 1e-2 for distance in nearest])
    assert 0.35 < share < 0.65


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stages": 0}, "stages is 0"),
        ({"stages": 4}, "stages is 4, but the net has 3"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 1}, "batch is 1"),
        ({"lr": 0.0}, "lr is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"margin": 2.0}, "angular margin"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_named_errors(people: Path, start: Path, tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        train_fine_tuning(people, init=start, out=tmp_path / "o", **wrong)
    assert not (tmp_path / "o").exists()


def test_one_person_and_no_encoder(people: Path, start: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for name in ("00", "01"):  # of which the first is held out
        (tmp_path / "few" / name).symlink_to(people / name)
    with pytest.raises(InvalidOption, match="two are needed"):
        train_fine_tuning(tmp_path / "few", init=start, out=tmp_path / "o")
    small = tmp_path / "small.safetensors"
    identity.save(identity.Tower(identity.Architecture(size=64, widths=(4,), blocks=(0,))), small)
    with pytest.raises(InvalidOption, match="crops of 64 pixels, not 112"):
        train_fine_tuning(people, init=small, out=tmp_path / "o")
    with pytest.raises(Collapse, match="not numbers any more"):
        train_fine_tuning(people, init=start, out=tmp_path / "o", steps=5, lr=1e30)
    assert not (tmp_path / "o").exists()
    (tmp_path / "bad.safetensors").write_bytes(b"none")
    with pytest.raises(WeightsError):
        train_fine_tuning(people, init=tmp_path / "bad.safetensors", out=tmp_path / "o")
