"""The promise of a calibration on real faces (reference encoder): fitted on some people, counted on others."""

import numpy as np
import pytest

from likeness.nets.engine import Engine
from likeness.recognition.calibration import fit
from likeness.samples.images import read_image


@pytest.fixture(scope="module")
def codes(data):
    """One crop of each of 1,500 people (1500, 512)."""
    weights, people = data / "weights" / "edgeface_xs.onnx", sorted((data / "faces" / "train").glob("celeba_*"))
    if not weights.is_file() or len(people) < 1500:
        pytest.skip("needs the reference encoder and the training pack")
    crops = np.stack([read_image(sorted(person.glob("*.webp"))[0]) for person in people[:1500]])
    engine = Engine(weights)
    pixels = (crops.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    found = np.concatenate([engine.run(np.ascontiguousarray(pixels[i : i + 50]))[0] for i in range(0, 1500, 50)])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_measured_rates_are_those_asked_for(codes, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    fitted, others = codes[order[:500]], codes[order[500:]]
    calibration = fit(fitted, np.arange(500), "edgeface")
    distances = (2 - 2 * others @ others.T)[np.triu_indices(len(others), 1)]
    for asked in (1e-2, 1e-3, 1e-4):
        assert np.mean(distances <= calibration.threshold(asked)) <= 1.25 * asked
    for size, asked in ((100, 0.03), (500, 0.1)):
        hits = []
        for _ in range(20):
            order = rng.permutation(len(others))
            gallery, probes = others[order[:size]], others[order[size : size + 400]]
            nearest = (2 - 2 * probes @ gallery.T).min(axis=1)
            hits.append(np.mean(nearest <= calibration.threshold_open_set(asked, size)))
        assert 0.3 * asked <= np.mean(hits) <= 1.25 * asked
