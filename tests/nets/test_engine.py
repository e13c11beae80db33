"""The engine on nets made here; the CPU quota on made-up cgroup trees."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import InvalidOption, UnreadableFile, WeightsError
from likeness.nets.engine import Engine, cpu_quota

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402


def make(inputs=("x",), shape=("batch", 3), outputs=("double", "square")) -> bytes:
    """A net that gives 2x (as the sum of its inputs with itself) and x squared."""
    kind = TensorProto.FLOAT
    nodes = [
        helper.make_node("Add", [inputs[0], inputs[-1]], [outputs[0]]),
        helper.make_node("Mul", [inputs[0], inputs[0]], [outputs[1]]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_runs_a_dynamic_batch_and_gives_all_outputs(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(make())
    for source in (file, file.read_bytes()):
        engine = Engine(source)
        assert engine.input_shape == (None, 3)
        assert engine.output_names == ("double", "square")
        for n in (0, 1, 7):
            x = np.arange(3 * n, dtype=np.float64).reshape(n, 3)
            double, square = engine.run(x)
            np.testing.assert_array_equal(double, 2 * x)
            np.testing.assert_array_equal(square, x * x)
            assert double.dtype == np.float32


def test_threads_default_to_the_quota_and_are_checked() -> None:
    assert Engine(make()).threads == min(cpu_quota(), 4)
    assert Engine(make(), threads=1).threads == 1
    with pytest.raises(InvalidOption, match="threads"):
        Engine(make(), threads=0)


def test_several_threads_may_run_it() -> None:
    engine = Engine(make(), threads=1)
    wrong = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((50, 3)).astype(np.float32)
        for _ in range(50):
            if not np.array_equal(engine.run(x)[0], 2 * x):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros((1, 4)), np.zeros((1, 3, 1))])
def test_an_input_that_does_not_fit_is_named(x: np.ndarray) -> None:
    with pytest.raises(InvalidOption, match="any x 3"):
        Engine(make()).run(x)


def test_a_net_that_fails_when_run_is_a_weights_error() -> None:
    kind = TensorProto.FLOAT
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2, 5])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", kind, ("n",))],
        [helper.make_tensor_value_info("y", kind, (2, 5))],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    engine = Engine(model.SerializeToString())
    assert engine.run(np.zeros(10))[0].shape == (2, 5)
    with pytest.raises(WeightsError, match="failed"):
        engine.run(np.zeros(7))


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"none\.onnx"):
        Engine(tmp_path / "none.onnx")
    whole = make()
    for number, damaged in enumerate((b"", b"not a net", whole[: len(whole) // 2], b"\x00" * 1000)):
        file = tmp_path / f"{number}.onnx"
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=rf"{number}\.onnx"):
            Engine(file)
    with pytest.raises(WeightsError, match="these bytes"):
        Engine(b"nothing")
    with pytest.raises(WeightsError, match="one input"):
        Engine(make(inputs=("x", "y")))


def test_tensors_in_a_second_file_are_refused(tmp_path: Path) -> None:
    """A net may name any file as the place of its tensors; nothing but the net itself is read."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(3, np.float32).tobytes())
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3], [0, 0, 0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=secret.name)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3))],
        [tensor],
    )
    file = tmp_path / "net.onnx"
    file.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with pytest.raises(WeightsError):
        Engine(file)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "0::/a/b\n"
V1 = "12:pids:/a\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 64),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "10000 100000"}, 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/a/cpu.max": "300000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 1"}, 3),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "500000 100000"}, 5),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/unified/a/b/cpu.max": "400000 100000"}, 4),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            6,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            64,
        ),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "rubbish here"}, 64),
    ],
)
def test_cpu_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cpu_quota(tree(tmp_path, files)) == expected


def test_cpu_quota_follows_the_affinity_and_works_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cpu_quota(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_quota(tmp_path) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpu_quota(tmp_path) == 6


def test_a_large_input_leaves_no_large_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of large inputs gives the same numbers."""
    monkeypatch.setattr("likeness.nets.engine.LARGE", 100)
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    engine = Engine(make())
    for _ in range(3):
        np.testing.assert_array_equal(engine.run(x)[0], 2 * x)
