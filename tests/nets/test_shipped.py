"""The weights that ship: each ONNX file computes what its safetensors computes, and the cards name these very bytes."""

import hashlib
import json

import numpy as np
import pytest
import torch

from likeness.faces import net as detector
from likeness.nets import classifier, identity
from likeness.nets.catalogue import SHIPPED
from likeness.nets.engine import Engine


@pytest.mark.parametrize(
    ("name", "load", "size"), [("face", identity.load, 112), ("face-detector", detector.load, 160)]
)
def test_onnx_is_the_safetensors(name: str, load: object, size: int) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        expected = load(SHIPPED / f"{name}.safetensors").eval()(torch.from_numpy(x)).numpy()  # type: ignore[operator]
    found = Engine(SHIPPED / f"{name}.onnx").run(x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("name", ["face", "face-detector"])
def test_cards_name_the_bytes(name: str) -> None:
    card = json.loads((SHIPPED / f"{name}.json").read_text())
    assert card["sha256"] == hashlib.sha256((SHIPPED / f"{name}.safetensors").read_bytes()).hexdigest()
    assert card["onnx_sha256"] == hashlib.sha256((SHIPPED / f"{name}.onnx").read_bytes()).hexdigest()


def test_the_classifier_is_that_of_its_card() -> None:
    card = json.loads((SHIPPED / "alexnet-slim.json").read_text())
    assert card["sha256"] == hashlib.sha256((SHIPPED / "alexnet-slim.safetensors").read_bytes()).hexdigest()
    net = classifier.load(SHIPPED / "alexnet-slim.safetensors")
    assert tuple(card["architecture"]["classes"]) == net.architecture.classes and len(net.architecture.classes) == 20
    assert (SHIPPED / "alexnet-slim.safetensors").stat().st_size <= 2_000_000


def test_sizes_are_within_their_promises() -> None:
    assert (SHIPPED / "face.safetensors").stat().st_size <= 4_000_000
    assert (SHIPPED / "face-detector.safetensors").stat().st_size <= 600_000
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 15_000_000
