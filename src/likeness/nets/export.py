"""From a torch net to an ONNX file that ONNX Runtime answers alike, to 1e-5. Needs the extra `likeness[torch]`."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidOption, MissingDependency, WeightsError
from ..samples.files import atomic_write
from .engine import Engine

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-5
SMALLEST = 256  # tensors with fewer values are not worth a Cast node


def export_onnx(
    net: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_shape: Sequence[int],
    more_inputs: Mapping[str, Sequence[int]] = MappingProxyType({}),
    dynamic_spatial: bool = False,
    input_name: str = "image",
    output_names: Sequence[str] = ("code",),
    half: bool = True,
    opset: int = 17,
    tolerance: float = TOLERANCE,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> float:
    """Write `net` (in eval mode, on the CPU) as ONNX and return its largest difference from torch (<= `tolerance`).

    `example_shape`: (batch, channels, *spatial); the batch is dynamic, with `dynamic_spatial` every spatial size too.
    `more_inputs`: name -> shape of what `net` takes after the image; of the same batch, and with sizes of its own.
    `half`: tensors whose values are float16 numbers (a net loaded from float16 safetensors) are stored as float16 and
    cast back when loaded: half the file, not one bit of difference. Others stay float32.
    `metadata`: what the file says of itself beside the graph, as names and texts.
    Differences are measured relative to the output's largest value where that is above 1, on three batches.
    Raises MissingDependency without torch and onnx, InvalidOption in training mode, WeightsError where the nets differ
    (then no file is written), StorageError where the file cannot be written.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise MissingDependency("exporting needs torch and onnx: pip install 'likeness[torch]'") from error
    if net.training:
        raise InvalidOption("export a net in eval mode: call net.eval() first")
    if len(example_shape) < 3:
        raise InvalidOption(f"example_shape must be (batch, channels, *spatial), not {tuple(example_shape)}")
    shapes = {input_name: tuple(example_shape), **more_inputs}
    axes = {name: {0: "batch"} for name in output_names}
    for name, shape in shapes.items():
        sizes = range(2, len(shape) if dynamic_spatial else 0)
        axes[name] = {0: "batch", **{axis: f"{'' if name == input_name else name}size{axis - 1}" for axis in sizes}}
    example = tuple(torch.from_numpy(x) for x in _noise(0, shapes.values()))
    with tempfile.TemporaryDirectory(prefix="likeness-") as folder:
        made = Path(folder) / "net.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # The TorchScript exporter: it needs no further package, and PRESERVE leaves BatchNorm in the graph, so that
            # the weights are those of the safetensors (ONNX Runtime fuses them into the convolutions when it loads).
            torch.onnx.export(
                net,
                example,
                str(made),
                input_names=list(shapes),
                output_names=list(output_names),
                dynamic_axes=axes,
                opset_version=opset,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                dynamo=False,
            )
        model = onnx.load(str(made))
        if half:
            _store_half(model)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        onnx.save(model, str(made))
        worst = compare(net, made, *shapes.values(), dynamic_spatial=dynamic_spatial)
        if not worst <= tolerance:
            raise WeightsError(
                f"{path}: ONNX Runtime differs from torch by {worst:.1e} (allowed {tolerance:.0e}); not written"
            )
        atomic_write(path, made.read_bytes())
    return worst


def export_encoder(file: str | os.PathLike[str], output: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the encoder in a safetensors file (`identity.save`) as ONNX; what it wrote, as plain values.

    `max_difference`: the largest difference of a code from torch's. Raises as `export_onnx`, and WeightsError where
    `file` is not an encoder.
    """
    try:
        from . import identity
    except ImportError as error:
        raise MissingDependency("exporting needs torch and onnx: pip install 'likeness[torch]'") from error
    tower = identity.load(file).eval()
    made = tower.architecture
    shape = (1, made.in_channels, *[made.size] * made.spatial_dims)
    worst = export_onnx(tower, output, example_shape=shape)
    return {
        "output": str(output),
        "bytes": Path(output).stat().st_size,
        "input": [None, *shape[1:]],
        "code_length": made.code_length,
        "max_difference": worst,
    }


def compare(
    net: nn.Module, onnx_file: str | os.PathLike[str], *shapes: Sequence[int], dynamic_spatial: bool = False
) -> float:
    """Largest difference between torch and ONNX Runtime over noise of three batch sizes (and sizes, if dynamic).
    `shapes`: of each input."""
    import torch

    engine = Engine(Path(onnx_file), inputs=len(shapes))
    worst = 0.0
    for seed, (batch, grow) in enumerate(((1, 1), (2, 2), (5, 1)), 1):
        grow = grow if dynamic_spatial else 1
        given = _noise(seed, [(batch, *one[1:2], *(n * grow for n in one[2:])) for one in shapes])
        with torch.no_grad():
            expected: Any = net(*map(torch.from_numpy, given))
        expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
        for want, have in zip(expected, engine.run(*given), strict=True):
            want = want.numpy()
            if want.shape != have.shape:
                return float("inf")
            scale = max(1.0, float(np.abs(want).max(initial=0)))
            difference = float(np.abs(want - have).max(initial=0)) / scale
            worst = max(worst, difference) if np.isfinite(difference) else float("inf")
    return worst


def _noise(seed: int, shapes: Iterable[Sequence[int]]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(tuple(shape), dtype=np.float32) for shape in shapes]


def _store_half(model: Any) -> None:
    """Store as float16 each float32 initializer that float16 can hold exactly, and cast it back when loaded."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < SMALLEST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = casts + list(graph.node)  # a graph's nodes must come in the order in which they are computed
    del graph.node[:]
    graph.node.extend(nodes)
