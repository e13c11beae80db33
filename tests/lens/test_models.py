"""Classifiers as `likeness lens` opens them: at their own size or another, of pictures only."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs

from likeness.errors import InvalidOption
from likeness.lens.models import open_model
from likeness.metric.augment import to_input
from likeness.nets.classifier import Architecture, Classifier, save


@pytest.mark.parametrize("size", [None, 64])
def test_a_classifier_is_shown_what_it_learnt_from(size: int | None, tmp_path: Path) -> None:
    """The lens and the training make the same input of the same picture."""
    save(Classifier(Architecture(("a", "b"), size=48, widths=(4,) * 5)), tmp_path / "net.safetensors")
    model = open_model(tmp_path / "net.safetensors", size=size)
    assert model.size == (size or 48)
    shown = model.picture(photographs.coffee())
    assert shown is not None and shown.shape == (model.size, model.size, 3)
    expected = to_input(torch.from_numpy(np.array(shown))[None])[0]
    torch.testing.assert_close(model.tensor(shown), expected, atol=1e-6, rtol=0)


def test_what_no_picture_fits_is_refused(tmp_path: Path) -> None:
    save(Classifier(Architecture(("a", "b"), spatial_dims=1, widths=(4,) * 5)), tmp_path / "signal.safetensors")
    save(Classifier(Architecture(("a", "b"), in_channels=1, widths=(4,) * 5)), tmp_path / "grey.safetensors")
    save(Classifier(Architecture(("a", "b"), widths=(4,) * 5)), tmp_path / "net.safetensors")
    for name, size, message in (("signal", None, "1 dim"), ("grey", None, "1 channel"), ("net", 6, "size is 6")):
        with pytest.raises(InvalidOption, match=message):
            open_model(tmp_path / f"{name}.safetensors", size=size)
