"""Several processes: equal parts of whole subjects, and the same weights everywhere after training."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from likeness.errors import InvalidOption
from likeness.metric.loop import Schedule, fit
from likeness.metric.losses import ArcFace
from likeness.metric.processes import Processes


def test_parts_are_contiguous_and_whole() -> None:
    """4 subjects x 4 samples for 4 processes: each has the mated pairs of one subject, in every part of the context."""
    batch = torch.arange(16), (torch.arange(16) // 4, "as it is")
    shares = [Processes(rank, 4).share(batch) for rank in range(4)]
    assert torch.cat([x for x, _ in shares]).tolist() == list(range(16))
    for rank, (_, (subjects, word)) in enumerate(shares):
        assert subjects.tolist() == [rank] * 4 and word == "as it is"
    assert Processes().share(batch) is not None and torch.equal(Processes().share(batch)[0], batch[0])
    with pytest.raises(InvalidOption, match="16 samples cannot be shared evenly by 3"):
        Processes(0, 3).share(batch)


def test_one_process_changes_nothing() -> None:
    layer = nn.Linear(2, 2)
    alone = Processes()
    alone.join()
    alone.average(layer, layer)
    alone.start_alike(layer)
    assert layer.weight.grad is None and alone.first(7, torch.device("cpu")) == 7


def test_gradients_and_running_statistics_are_averaged_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes; the other one is played here. A weight without a gradient counts as zero, counters of whole
    numbers and weights that do not learn stay as they are."""
    net, extra = nn.BatchNorm1d(2), nn.Linear(2, 3)
    extra.bias.requires_grad_(False)
    weights = nn.ModuleList([net, extra])
    net.weight.grad, net.bias.grad = torch.tensor([2.0, 4.0]), None
    extra.weight.grad = torch.ones(3, 2)
    net.running_mean = torch.tensor([1.0, 3.0])
    theirs = torch.arange(2 + 2 + 6 + 2 + 2).float()  # in the order of the parameters, then of the statistics
    seen: list[torch.Tensor] = []

    def all_reduce(ours: torch.Tensor) -> None:
        seen.append(ours.clone())
        ours.add_(theirs)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    Processes(0, 2).average(weights, net)
    assert seen[0].tolist() == [2, 4, 0, 0, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1]
    assert net.weight.grad.tolist() == [1, 2.5]
    assert net.bias.grad.tolist() == [1, 1.5]  # type: ignore[attr-defined]
    assert extra.weight.grad.tolist() == [[2.5, 3], [3.5, 4], [4.5, 5]]
    assert extra.bias.grad is None
    assert net.running_mean.tolist() == [5.5, 7] and net.running_var.tolist() == [6.5, 7]  # type: ignore[union-attr]
    assert int(net.num_batches_tracked) == 0  # type: ignore[arg-type]


class Line(nn.Module):
    """Without batch normalisation: what it learns does not depend on who sees which part of a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.layer(x))


def train_line() -> tuple[nn.Module, nn.Module, nn.Module]:
    """Net, its average and ArcFace's class vectors after a few steps whose gradients are clipped."""
    net, extra = Line(), ArcFace(4, 4, scale=64)

    def batch(step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(8, 6, generator=generator), torch.arange(8) // 2

    def loss(codes: torch.Tensor, subjects: torch.Tensor, generator: torch.Generator) -> object:
        return extra(codes, subjects)

    averaged = fit(net, batch, loss, schedule=Schedule(5, 0.05, 0), extra=extra, precision="fp32")  # type: ignore[arg-type]
    return net, averaged, extra


WORKER = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from test_processes import train_line
from test_loop import run_on_random_signals, signal_tower
from safetensors.torch import save_file
from likeness.metric.losses import objective
torch.distributed.init_process_group("gloo")
folder, rank = Path(sys.argv[1]), torch.distributed.get_rank()
tensors = {{}}
for name, module in zip(("net", "averaged", "extra"), train_line()):
    tensors |= {{f"line.{{name}}.{{key}}": value for key, value in module.state_dict().items()}}
net = signal_tower(seed=rank)
extra = objective("arcface", classes=16, code_length=16, seed=rank)
averaged = run_on_random_signals(
    net, extra, 6, None, extra=extra, optimizer="muon", precision="auto", checkpoint=folder / "run", every=3
)
for name, module in (("net", net), ("averaged", averaged), ("extra", extra)):
    tensors |= {{f"tower.{{name}}.{{key}}": value.contiguous() for key, value in module.state_dict().items()}}
save_file({{key: value.clone() for key, value in tensors.items()}}, folder / f"{{rank}}.safetensors")
"""


def run_in_two(script: Path, *arguments: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, str(script), *arguments], env=os.environ | told | {"RANK": str(rank)})
        for rank in range(2)
    ]
    for worker in workers:
        worker.wait(timeout=240)
    assert [worker.returncode for worker in workers] == [0, 0]


@pytest.mark.slow
def test_two_processes_train_one_net(tmp_path: Path) -> None:
    """Both end in the same weights, running statistics and class vectors, although they start apart; without batch
    normalisation these are the ones that a single process finds."""
    from safetensors.torch import load_file

    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(here=str(Path(__file__).parent)))
    run_in_two(script, str(tmp_path))
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    for name, module in zip(("net", "averaged", "extra"), train_line(), strict=True):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(first[f"line.{name}.{key}"], value, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


HINTED = """
import sys, torch
from pathlib import Path
from likeness.metric.training import train_recognition
torch.distributed.init_process_group("gloo")
people, folder, hint = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
result = train_recognition(
    people, out=folder / "enc.safetensors", loss="arcface", teacher=folder / "teacher.onnx", hints=(hint,),
    cache=folder / "cache", widths=(4, 8), blocks=(1, 1), sizes=(56, 112), shares=(0.5, 0.5), batch=16, steps=4,
    warmup=1, every=2, precision="fp32", checkpoint=folder / "run",
)
assert bool(result.figures) == (torch.distributed.get_rank() == 0)
"""


@pytest.mark.slow
def test_two_processes_with_a_teacher_and_hints(people: Path, tmp_path: Path) -> None:
    """Hints hear the inner maps of each process's own part; the caches are there already."""
    import onnx

    from likeness.metric.data import load_crops
    from likeness.metric.distillation import teacher_codes
    from likeness.metric.hints import teacher_maps
    from likeness.nets import identity
    from likeness.nets.export import export_onnx

    net = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU(), nn.AvgPool2d(28), nn.Flatten(), nn.Linear(6, 130))
    export_onnx(net.eval(), tmp_path / "teacher.onnx", example_shape=(2, 3, 112, 112))
    graph = onnx.load(str(tmp_path / "teacher.onnx")).graph
    name = next(node.output[0] for node in graph.node if node.op_type == "Relu")
    images = load_crops(people, cache=tmp_path / "cache").images
    teacher_codes(images, tmp_path / "teacher.onnx", cache=tmp_path / "cache")
    teacher_maps(images, tmp_path / "teacher.onnx", [name], cache=tmp_path / "cache")
    script = tmp_path / "worker.py"
    script.write_text(HINTED)
    run_in_two(script, str(people), str(tmp_path), name)
    assert identity.load(tmp_path / "enc.safetensors").architecture.widths == (4, 8)
