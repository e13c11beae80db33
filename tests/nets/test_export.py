"""Export: the ONNX file answers as torch does, is as small as float16 allows, and BatchNorm costs nothing in it."""

from pathlib import Path

import numpy as np
import pytest

from likeness.errors import InvalidOption, WeightsError
from likeness.nets import export
from likeness.nets.engine import Engine

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from torch import nn  # noqa: E402


class TwoOutputs(nn.Module):
    """Fully convolutional: a picture of any size gives two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y, y.sum(1, keepdim=True)


def small(dims: int = 2) -> nn.Module:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 16, 3, bias=False), norm(16), nn.PReLU(16), nn.Flatten(), nn.LazyLinear(32))
    net(torch.zeros(2, 3, *[8] * dims))
    with torch.no_grad():
        net[1].running_mean.uniform_(-1, 1)
        net[1].running_var.uniform_(0.5, 2)
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1:
                parameter.data = parameter.data.half().float()
    return net.eval()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_codes_equal_torch_in_every_dimension_and_batch(tmp_path: Path, dims: int) -> None:
    net = small(dims)
    file = tmp_path / "net.onnx"
    worst = export.export_onnx(net, file, example_shape=(1, 3, *[8] * dims))
    assert worst <= 1e-5
    engine = Engine(file)
    assert engine.input_shape == (None, 3, *[8] * dims)
    for batch in (1, 3, 64):
        x = np.random.default_rng(batch).standard_normal((batch, 3, *[8] * dims)).astype(np.float32)
        with torch.no_grad():
            np.testing.assert_allclose(engine.run(x)[0], net(torch.from_numpy(x)).numpy(), atol=1e-5)
    assert list(tmp_path.iterdir()) == [file]  # nothing temporary is left


def test_matrices_are_stored_as_float16_without_changing_a_bit(tmp_path: Path) -> None:
    net = small()
    half, full = tmp_path / "half.onnx", tmp_path / "full.onnx"
    export.export_onnx(net, half, example_shape=(1, 3, 8, 8))
    export.export_onnx(net, full, example_shape=(1, 3, 8, 8), half=False)
    values = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert full.stat().st_size - half.stat().st_size > 1.9 * values
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(Engine(half).run(x)[0], Engine(full).run(x)[0])


@pytest.mark.parametrize("half", [True, False])
def test_what_a_file_says_of_itself(half: bool, tmp_path: Path) -> None:
    said = {"b": "2", "a": "one"}
    export.export_onnx(small(), tmp_path / "net.onnx", example_shape=(1, 3, 8, 8), half=half, metadata=said)
    found = onnx.load(str(tmp_path / "net.onnx")).metadata_props
    assert {one.key: one.value for one in found} == said


def test_weights_that_float16_cannot_hold_stay_float32(tmp_path: Path) -> None:
    net = small()
    with torch.no_grad():
        net[4].weight[0, 0] = 1 / 3
    file = tmp_path / "net.onnx"
    export.export_onnx(net, file, example_shape=(1, 3, 8, 8))
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(str(file)).graph.initializer}
    assert kinds["4.weight"] == onnx.TensorProto.FLOAT
    assert kinds["0.weight.half"] == onnx.TensorProto.FLOAT16


def test_batchnorm_is_in_the_file_with_its_own_numbers(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    export.export_onnx(small(), file, example_shape=(1, 3, 8, 8))
    assert "BatchNormalization" in [node.op_type for node in onnx.load(str(file)).graph.node]


def test_any_picture_size_and_several_outputs(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    net = TwoOutputs().eval()
    export.export_onnx(net, file, example_shape=(1, 3, 32, 32), dynamic_spatial=True, output_names=("map", "sum"))
    engine = Engine(file)
    assert engine.input_shape == (None, 3, None, None)
    assert engine.output_names == ("map", "sum")
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    with torch.no_grad():
        for have, want in zip(engine.run(x), net(torch.from_numpy(x)), strict=True):
            np.testing.assert_allclose(have, want.numpy(), atol=1e-5)


class Mixed(nn.Module):
    """A second picture, of a size of its own, and a number."""

    def forward(self, x, other, share):
        return x + share[:, None, None, None] * other.mean((2, 3), keepdim=True)


def test_several_inputs(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    more = {"other": (1, 3, 6, 7), "share": (1,)}
    export.export_onnx(Mixed().eval(), file, example_shape=(1, 3, 8, 8), more_inputs=more, dynamic_spatial=True)
    engine = Engine(file, inputs=3)
    x, other, share = (np.random.default_rng(0).random(s, np.float32) for s in ((2, 3, 9, 5), (2, 3, 4, 4), (2,)))
    want = x + share[:, None, None, None] * other.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(engine.run(x, other, share)[0], want, atol=1e-6)
    with pytest.raises(InvalidOption, match="the net takes any x 3 x any x any, not 2 x 1"):
        engine.run(x, other[:, :1], share)
    for inputs, message in ((1, r"one input is needed, this one has 3 \(image, other, share\)"), (2, "2 inputs")):
        with pytest.raises(WeightsError, match=message):
            Engine(file, inputs=inputs)


def test_a_net_that_answers_differently_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"older")
    monkeypatch.setattr(export, "compare", lambda *_, **__: float("nan"))
    with pytest.raises(WeightsError, match="differs"):
        export.export_onnx(small(), file, example_shape=(1, 3, 8, 8))
    assert file.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [file]


def test_compare_sees_a_wrong_file(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    net = small()
    export.export_onnx(net, file, example_shape=(1, 3, 8, 8))
    with torch.no_grad():
        net[4].bias[0] += 0.01
    assert export.compare(net, file, (1, 3, 8, 8)) == pytest.approx(0.01, rel=0.5)
    assert export.compare(nn.Flatten(), file, (1, 3, 8, 8)) == float("inf")


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="eval"):
        export.export_onnx(small().train(), tmp_path / "a.onnx", example_shape=(1, 3, 8, 8))
    with pytest.raises(InvalidOption, match="example_shape"):
        export.export_onnx(small(), tmp_path / "a.onnx", example_shape=(1, 3))


def test_export_encoder_from_its_safetensors(tmp_path: Path) -> None:
    from likeness.nets import identity

    torch.manual_seed(1)
    tower = identity.Tower(identity.Architecture(size=32, widths=(8, 16), blocks=(1, 1), code_length=24))
    identity.save(tower, tmp_path / "enc.safetensors")
    report = export.export_encoder(tmp_path / "enc.safetensors", tmp_path / "enc.onnx")
    assert report["max_difference"] <= 1e-5
    assert report["code_length"] == 24
    assert report["input"] == [None, 3, 32, 32]
    assert report["bytes"] == (tmp_path / "enc.onnx").stat().st_size
    codes = Engine(tmp_path / "enc.onnx").run(np.zeros((2, 3, 32, 32), np.float32))[0]
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-5)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError):
        export.export_encoder(tmp_path / "bad.safetensors", tmp_path / "bad.onnx")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    from likeness.errors import StorageError

    with pytest.raises(StorageError, match="nowhere"):
        export.export_onnx(small(), tmp_path / "nowhere" / "net.onnx", example_shape=(1, 3, 8, 8))
