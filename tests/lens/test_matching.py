"""Why two photographs match: with an encoder of this test and portraits that come with scikit-image."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import likeness
from likeness.errors import FingerprintMismatch, InvalidOption, WeightsError
from likeness.lens.comparing import compare_samples
from likeness.lens.drawing import AGAINST, FOR, overlay, sheet
from likeness.lens.face_nets import GradientNet, OnnxNet, gradient_net
from likeness.lens.face_shares import FaceShares, face_shares
from likeness.nets import catalogue
from likeness.nets.activations import activations
from likeness.recognition.encoder import FaceEncoder

skimage = pytest.importorskip("skimage.data", reason="the portraits come with scikit-image (extra: test)")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return skimage.astronaut()


def crop(seed: int) -> np.ndarray:
    """As large as the encoder's crops, so that no face is looked for; smooth, so that the net sees something."""
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((112, 112), Image.Resampling.BICUBIC))


def test_the_score_is_that_of_verify_and_the_maps_add_up_to_it(photograph: np.ndarray) -> None:
    other = photograph[:, ::-1].copy()
    found = likeness.lens.compare(photograph, other)
    decision = likeness.verify(photograph, other)
    assert found.comparison.distance == pytest.approx(decision.distance, abs=1e-4)
    assert found.threshold == decision.threshold and found.headline().startswith(decision.decision)
    assert set(found.shares) == {"a", "b"}
    for share in found.shares.values():
        assert share.map.shape == (14, 14) and share.explained == pytest.approx(1, abs=1e-3)


def test_both_ways_through_the_encoder_give_its_codes() -> None:
    encoder = FaceEncoder.load()
    crops = np.stack([crop(seed) for seed in range(3)])
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    for net in (gradient_net(encoder), OnnxNet(encoder)):
        with torch.no_grad():
            assert np.abs(net(x).numpy() - encoder.encode_crops(crops)).max() < 1e-4


def test_a_position_of_the_mirror_images_maps_is_the_same_place_of_the_face() -> None:
    net = gradient_net(FaceEncoder.load())
    x = torch.from_numpy(crop(1).copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        as_seen, mirrored = activations(net, x, ["maps"])["maps"].chunk(2, 1)
        again, turned = (half.flip(-1) for half in activations(net, x.flip(-1), ["maps"])["maps"].chunk(2, 1))
    assert torch.allclose(as_seen, turned, atol=1e-5) and torch.allclose(mirrored, again, atol=1e-5)


def test_colours_in_another_order_and_without_a_mirror() -> None:
    encoder = FaceEncoder.load()
    tower = gradient_net(encoder).tower
    plain = catalogue.Preprocessing(input_order="bgr", mirror=False, mean=100.0, scale=50.0)
    x = torch.rand(2, 3, 112, 112) * 255
    with torch.no_grad():
        assert torch.allclose(GradientNet(tower, plain)(x), tower((x.flip(1) - 100) / 50), atol=1e-5)


@pytest.mark.parametrize("order", ("rgb", "bgr"))
@pytest.mark.parametrize("mirror", (True, False))
def test_the_linear_maps_are_those_that_torch_finds(mirror: bool, order: str) -> None:
    encoder = FaceEncoder.load()
    preprocessing = catalogue.Preprocessing(input_order=order, mirror=mirror, mean=100.0, scale=90.0)
    net = GradientNet(gradient_net(encoder).tower, preprocessing).eval()
    plain = FaceShares(face_shares(encoder).tower, preprocessing)
    a, b = crop(1), crop(2)
    x, y = (torch.from_numpy(one.copy()).permute(2, 0, 1)[None].float() for one in (a, b))
    expected = compare_samples(net, x, y, layer="maps")
    found = plain.share(a, plain.code(b))
    assert expected.a.rest is not None and found.rest == pytest.approx(expected.a.rest, abs=1e-5)
    assert found.value == pytest.approx(expected.a.value, abs=1e-5)
    assert np.abs(found.map - expected.a.map).max() < 1e-5 < expected.a.map.std()


def test_no_torch_is_imported(tmp_path: Path) -> None:
    """Importing it takes longer than all that is computed."""
    for i in (1, 2):
        Image.fromarray(crop(i)).save(tmp_path / f"{i}.png")
    words = ["lens", "compare", str(tmp_path / "1.png"), str(tmp_path / "2.png"), "-o", str(tmp_path / "why.png")]
    code = (
        f"import sys; from likeness.cli.main import main; assert main({words}) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_template_has_a_code_but_no_picture(photograph: np.ndarray) -> None:
    template = likeness.encode(photograph).templates[0]
    found = likeness.lens.compare(crop(1), template, against=crop(2))
    assert set(found.shares) == {"a", "n"} and found.comparison.b is None
    assert found.comparison.score == pytest.approx(
        likeness.lens.compare(crop(1), photograph).comparison.score, abs=1e-5
    )
    assert found.to_dict()["b"] is None and found.to_dict()["fingerprint"] == template.fingerprint
    doubled = likeness.Template(2 * template.code, template.fingerprint, origin="long.jpg")
    assert likeness.lens.compare(crop(1), doubled).comparison.score == pytest.approx(
        likeness.lens.compare(crop(1), template).comparison.score, abs=1e-6
    )
    with pytest.raises(InvalidOption, match="a is a photograph"):
        likeness.lens.compare(template, crop(1))  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="max_fmr"):
        likeness.lens.compare(crop(1), crop(2), max_fmr=2)
    stranger = likeness.Template(template.code, "0" * 16, origin="old.jpg")
    with pytest.raises(FingerprintMismatch, match="old.jpg"):
        likeness.lens.compare(photograph, stranger)


def test_an_encoder_that_is_an_onnx_file_only(tmp_path: Path) -> None:
    encoder = FaceEncoder.load()
    file = tmp_path / "face.onnx"
    entry = encoder.entry
    foreign = FaceEncoder(type(entry)(**{**entry.__dict__, "path": file}), encoder._engine, encoder.detector)
    with pytest.raises(InvalidOption, match="method='occlusion'"):
        likeness.lens.compare(crop(1), crop(2), encoder=foreign)
    net = OnnxNet(foreign)
    x = torch.from_numpy(crop(1).copy()).permute(2, 0, 1)[None].float()
    cover = compare_samples(net, x, net(x)[0], method="occlusion", window=56, stride=56)
    assert cover.score == pytest.approx(1, abs=1e-6) and (cover.a.map > 0).all()


def test_altered_weights_are_noticed(tmp_path: Path) -> None:
    encoder = FaceEncoder.load()
    assert encoder.entry.path is not None
    for ending in (".onnx", ".safetensors"):
        shutil.copy(encoder.entry.path.with_suffix(ending), tmp_path / f"face{ending}")
    data = bytearray((tmp_path / "face.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "face.safetensors").write_bytes(data)
    entry = replace(encoder.entry, path=tmp_path / "face.onnx")
    altered = FaceEncoder(entry, encoder._engine, encoder.detector)
    for method in ("linear", "grad-cam"):
        with pytest.raises(WeightsError, match="was altered"):
            likeness.lens.compare(crop(1), crop(2), encoder=altered, method=method)


def test_a_photograph_without_a_face_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    with pytest.raises(InvalidOption, match=r"black\.png: cannot be compared: no face"):
        likeness.lens.compare(tmp_path / "black.png", crop(1))


def test_the_picture_shows_all_of_them(tmp_path: Path) -> None:
    with torch.inference_mode():
        found = likeness.lens.compare(crop(1), crop(2), against=crop(3), method="grad-cam")
    found.save(tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as written:
        assert written.size[0] > 3 * 320
    assert likeness.lens.compare(crop(1), crop(2)).image().shape[1] < written.size[0]


def test_colours_say_for_and_against() -> None:
    picture = np.full((2, 2, 3), 128, np.uint8)
    drawn = overlay(picture, np.array([[1.0, -1.0], [0.0, 0.5]]), 1.0).astype(int)

    def apart(pixel: np.ndarray, colour: np.ndarray) -> int:
        return int(np.abs(pixel - colour).sum())

    assert apart(drawn[0, 0], FOR) < apart(drawn[1, 1], FOR) < apart(drawn[1, 0], FOR)
    assert apart(drawn[0, 1], AGAINST) < apart(drawn[1, 0], AGAINST)
    assert len(set(drawn[1, 0])) == 1  # grey where nothing speaks
    assert np.array_equal(overlay(picture, np.zeros((2, 2)), 0.0)[0, 0], drawn[1, 0])


def test_a_long_path_keeps_its_end() -> None:
    picture = np.full((4, 4, 3), 128, np.uint8)
    long, short = (sheet("headline", "line", [(name, picture, picture, "sum")] * 2) for name in ("x" * 500 + "a", "a"))
    assert long.shape == short.shape and not np.array_equal(long, short)
