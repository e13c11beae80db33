"""Made-up people for tests of training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
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
