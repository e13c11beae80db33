"""The catalogue: what ships, what can be fetched and what users bring; nothing altered is ever used."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from likeness.errors import InvalidOption, StorageError, UnknownName, UnreadableFile, WeightsError
from likeness.nets import catalogue
from likeness.nets.catalogue import Preprocessing
from likeness.nets.engine import Engine
from likeness.nets.probing import encode_batch, unit

from .encoders import encoder_bytes  # noqa: E402


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty catalogue of the user."""
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with one encoder, as if it shipped."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "face.onnx").write_bytes(encoder_bytes())
    (folder / "face.safetensors").write_bytes(b"the same weights in another file")
    monkeypatch.setattr(catalogue, "SHIPPED", folder)
    catalogue.write_card(
        folder,
        "face",
        kind="encoder",
        licence="research",
        description="tiny",
        preprocessing=Preprocessing(),
        code_length=16,
        recipe="docs/recipes/face.md",
    )
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.onnx"
    path.write_bytes(encoder_bytes(d=24, seed=3))
    return path


def flip_a_bit(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_fingerprint_is_that_of_the_canonical_json() -> None:
    text = (
        '{"code_length":128,"preprocessing":{"input_order":"rgb","mean":127.5,"mirror":false,"scale":127.5,"size":112},'
        '"sha256":"abc"}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert catalogue.fingerprint("abc", Preprocessing(), 128) == expected
    assert catalogue.fingerprint("abc", Preprocessing(mean=127.5, scale=np.float32(127.5)), 128) == expected
    assert catalogue.fingerprint("abc", Preprocessing(mean=128, scale=128), 128) == catalogue.fingerprint(
        "abc", Preprocessing(mean=128.0, scale=128.0), 128
    )
    others = [
        catalogue.fingerprint("abd", Preprocessing(), 128),
        catalogue.fingerprint("abc", Preprocessing(mirror=True), 128),
        catalogue.fingerprint("abc", Preprocessing(input_order="bgr"), 128),
        catalogue.fingerprint("abc", Preprocessing(mean=127), 128),
        catalogue.fingerprint("abc", Preprocessing(), 64),
        catalogue.fingerprint("abc", None, None),
    ]
    assert len({expected, *others}) == 7


@pytest.mark.parametrize(
    "options",
    [{"input_order": "gbr"}, {"scale": 0}, {"scale": -1}, {"scale": float("nan")}, {"mean": float("inf")}, {"size": 0}],
)
def test_preprocessing_is_checked(options: dict) -> None:
    with pytest.raises(InvalidOption):
        Preprocessing(**options)


def test_what_ships_is_listed_first_and_read(shipped: Path, home: Path, file: Path) -> None:
    catalogue.add(file, name="aaa")
    assert [one.name for one in catalogue.entries()] == ["face", "yunet", "vgg19", "vgg16", "aaa"]
    one = catalogue.entry("face")
    assert one.shipped and one.kind == "encoder" and one.calibration is None
    assert one.sha256 == hashlib.sha256((shipped / "face.safetensors").read_bytes()).hexdigest()
    assert one.onnx_sha256 == hashlib.sha256((shipped / "face.onnx").read_bytes()).hexdigest()
    assert one.fingerprint == catalogue.fingerprint(one.sha256, Preprocessing(), 16)
    assert one.bytes == (shipped / "face.onnx").stat().st_size
    assert catalogue.path("face") == shipped / "face.onnx"
    assert json.loads((shipped / "face.json").read_text())["recipe"] == "docs/recipes/face.md"
    found = json.loads(json.dumps(one.to_dict()))
    assert {"name", "kind", "shipped", "bytes", "licence", "fingerprint"} <= set(found)
    again, data = catalogue.read("face")
    assert again == one and data == (shipped / "face.onnx").read_bytes()


def test_the_shipped_calibration_is_found_and_cannot_be_replaced(shipped: Path, home: Path, file: Path) -> None:
    assert catalogue.entry("face").calibration is None
    (shipped / "face.calibration.json").write_text("{}")
    assert catalogue.entry("face").calibration == shipped / "face.calibration.json"
    assert [one.name for one in catalogue.entries()] == ["face", "yunet", "vgg19", "vgg16"]  # a calibration is no entry
    with pytest.raises(InvalidOption, match="ships"):
        catalogue.calibration_file("face")
    catalogue.add(file, name="mine")
    assert catalogue.calibration_file("mine") == home / "mine.calibration.json"


@pytest.mark.parametrize("at", [0, 100, -1])
def test_one_altered_bit_of_shipped_weights_is_refused(shipped: Path, home: Path, at: int) -> None:
    flip_a_bit(shipped / "face.onnx", at)
    for use in (catalogue.path, catalogue.read):
        with pytest.raises(WeightsError, match=r"altered.*reinstall"):
            use("face")


def test_missing_weights_are_refused(shipped: Path, home: Path) -> None:
    (shipped / "face.onnx").unlink()
    with pytest.raises(WeightsError, match=r"face\.onnx"):
        catalogue.path("face")


@pytest.mark.parametrize(
    "change",
    [
        lambda card: {**card, "code_length": 17},
        lambda card: {**card, "sha256": "0" * 64},
        lambda card: {**card, "preprocessing": {**card["preprocessing"], "input_order": "bgr"}},
        lambda card: {**card, "preprocessing": {"nonsense": 1}},
        lambda card: {**card, "name": "other"},
        lambda card: {key: value for key, value in card.items() if key != "licence"},
        lambda card: [],
        lambda card: "text",
    ],
)
def test_an_altered_card_is_refused(shipped: Path, home: Path, change) -> None:
    card = shipped / "face.json"
    card.write_text(json.dumps(change(json.loads(card.read_text()))))
    with pytest.raises(WeightsError, match=r"face\.json"):
        catalogue.entry("face")


def test_unknown_names_suggest_the_nearest(shipped: Path, home: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'face'"):
        catalogue.entry("fase")
    with pytest.raises(UnknownName, match="there are: face, vgg16, vgg19, yunet"):
        catalogue.path("xyzzy")
    for name in ("", "../face", "a/b", "."):
        with pytest.raises(UnknownName):
            catalogue.entry(name)


@pytest.mark.parametrize("d", [2, 64, 512])
def test_an_encoder_of_any_code_length_can_be_added(home: Path, tmp_path: Path, d: int) -> None:
    source = tmp_path / "x.onnx"
    source.write_bytes(encoder_bytes(d=d))
    one = catalogue.add(source, name=f"mine-{d}", input_order="bgr", mean=0, scale=1, mirror=True, licence="MIT")
    assert (one.code_length, one.kind, one.shipped, one.licence) == (d, "encoder", False, "MIT")
    assert one.preprocessing == Preprocessing(input_order="bgr", mean=0.0, scale=1.0, mirror=True)
    source.unlink()  # the catalogue keeps its own copy
    assert catalogue.path(f"mine-{d}") == home / f"mine-{d}.onnx"
    assert catalogue.entry(f"mine-{d}") == one


def test_each_preprocessing_has_its_own_fingerprint(home: Path, file: Path) -> None:
    a = catalogue.add(file, name="a")
    b = catalogue.add(file, name="b", input_order="bgr")
    assert a.sha256 == b.sha256 and a.fingerprint != b.fingerprint


def test_open_sizes_and_a_fixed_batch_of_one_are_taken(home: Path, tmp_path: Path) -> None:
    for name, options in {"open": {"side": "s"}, "single": {"batch": 1}}.items():
        (tmp_path / "x.onnx").write_bytes(encoder_bytes(**options))
        assert catalogue.add(tmp_path / "x.onnx", name=name).code_length == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 96}, "takes"),
        ({"channels": 1}, "takes"),
        ({"outputs": 2}, "one output"),
        ({"flat": False}, "gives \\(batch, d\\)"),
        ({"constant": True}, "same code"),
        ({"across": True}, "pictures beside it"),
        ({"batch": 4}, "exactly 4"),
        ({"d": 1}, "gives \\(batch, d\\)"),
    ],
)
def test_what_is_no_encoder_is_refused_with_the_reason(home: Path, tmp_path: Path, options: dict, message: str) -> None:
    (tmp_path / "x.onnx").write_bytes(encoder_bytes(**options))
    with pytest.raises(InvalidOption, match=message):
        catalogue.add(tmp_path / "x.onnx", name="x")
    assert not home.exists() or not list(home.iterdir())


def test_a_constant_zero_code_is_refused() -> None:
    with pytest.raises(WeightsError, match="zero"):
        unit(np.zeros((2, 4)))
    with pytest.raises(WeightsError, match="finite"):
        unit(np.array([[1.0, np.nan]]))


def test_files_that_are_no_net_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"PK not a net")
    with pytest.raises(WeightsError):
        catalogue.add(tmp_path / "x.onnx", name="x")
    with pytest.raises(UnreadableFile, match=r"none\.onnx"):
        catalogue.add(tmp_path / "none.onnx", name="x")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b", "a.calibration", "a.onnx", "é"])
def test_names_that_are_no_names(home: Path, file: Path, name: str) -> None:
    with pytest.raises(InvalidOption, match="name"):
        catalogue.add(file, name=name)


def test_names_that_are_taken(shipped: Path, home: Path, file: Path) -> None:
    catalogue.add(file, name="mine")
    for name in ("mine", "MINE", "face", "Face", "yunet"):
        with pytest.raises(InvalidOption, match="taken"):
            catalogue.add(file, name=name)


def test_remove_takes_everything_away(shipped: Path, home: Path, file: Path) -> None:
    catalogue.add(file, name="mine")
    (home / "mine.calibration.json").write_text("{}")
    assert catalogue.entry("mine").calibration == home / "mine.calibration.json"
    catalogue.remove("mine")
    assert not list(home.iterdir())
    with pytest.raises(UnknownName):
        catalogue.remove("mine")
    with pytest.raises(InvalidOption, match="ships"):
        catalogue.remove("face")
    assert (shipped / "face.onnx").exists()


def test_a_damaged_own_entry_can_be_removed_and_added_again(home: Path, file: Path) -> None:
    catalogue.add(file, name="mine")
    (home / "mine.json").write_text("{")
    with pytest.raises(WeightsError, match="weights remove mine"):
        catalogue.entry("mine")
    catalogue.remove("mine")
    assert catalogue.add(file, name="mine").name == "mine"
    flip_a_bit(home / "mine.onnx", 50)
    with pytest.raises(WeightsError, match="altered"):
        catalogue.path("mine")


def test_a_calibration_left_behind_does_not_serve_the_next_of_that_name(home: Path, file: Path) -> None:
    home.mkdir()
    (home / "mine.calibration.json").write_text("{}")
    assert catalogue.add(file, name="mine").calibration is None


def test_a_calibration_is_no_entry(shipped: Path, home: Path, file: Path) -> None:
    catalogue.add(file, name="mine")
    (home / "mine.calibration.json").write_text("{}")
    (shipped / "face.calibration.json").write_text("{}")
    for name in ("mine.calibration", "face.calibration"):
        with pytest.raises(UnknownName, match="there are: face, mine, vgg16, vgg19, yunet"):
            catalogue.entry(name)
        with pytest.raises(UnknownName):
            catalogue.remove(name)
    assert (home / "mine.calibration.json").exists()


def test_a_file_that_is_no_net_is_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(WeightsError, match=r"junk\.onnx: not a working ONNX net"):
        catalogue.add(tmp_path / "junk.onnx", name="x")


def test_weights_are_read_and_hashed_once(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    whole = catalogue.check
    monkeypatch.setattr(catalogue, "check", lambda one: (checked.append(one.name), whole(one))[1])
    assert catalogue.read("face")[1] == (shipped / "face.onnx").read_bytes()
    assert checked == ["face"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    (tmp_path / "blocked").write_text("a file, not a folder")
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "blocked"))
    assert [one.name for one in catalogue.entries()][-1] == "vgg16"
    with pytest.raises(StorageError, match="LIKENESS_HOME"):
        catalogue.add(file, name="mine")


def test_where_the_users_catalogue_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LIKENESS_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalogue.home() == tmp_path / ".local/share/likeness"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert catalogue.home() == Path("/data/likeness")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert catalogue.home() == Path("/local/likeness")
    monkeypatch.setenv("LIKENESS_HOME", "~/mine")
    assert catalogue.home() == tmp_path / "mine"


def test_a_downloaded_entry_is_checked_each_time_and_can_be_removed(
    home: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"a detector"
    listed = replace(catalogue.DOWNLOADS[0], bytes=len(data), onnx_sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(catalogue, "DOWNLOADS", (listed,))
    assert catalogue.entry("yunet").path is None
    home.mkdir()
    (home / "yunet.onnx").write_bytes(data)  # put there by hand, as the message of a failed download says
    assert catalogue.path("yunet") == home / "yunet.onnx"
    (home / "yunet.onnx").write_bytes(b"A detector")
    with pytest.raises(WeightsError, match=r"altered.*fetch it again"):
        catalogue.path("yunet")
    catalogue.remove("yunet")
    assert catalogue.entry("yunet").path is None


def test_listed_downloads_are_complete() -> None:
    for one in catalogue.DOWNLOADS:
        assert one.url and one.url.startswith("https://") and all(m.startswith("https://") for m in one.mirrors)
        assert len(one.file_sha256) == 64 and one.licence
        assert one.name == "vgg16" if one.bytes is None else one.bytes > 0


def test_codes_follow_the_preprocessing() -> None:
    """Independent: cells averaged, matrix multiplied, mirrored and normalised in float64."""
    data = encoder_bytes(d=8, seed=1)
    matrix = np.random.default_rng(1).standard_normal((3 * 14 * 14, 8)).astype(np.float32).astype(np.float64)
    crops = np.random.default_rng(5).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)

    def reference(pixels: np.ndarray, mean: float, scale: float) -> np.ndarray:
        x = (pixels.astype(np.float64) - mean) / scale
        cells = x.reshape(len(x), 14, 8, 14, 8, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(len(x), -1)
        codes = cells @ matrix
        return codes / np.linalg.norm(codes, axis=1, keepdims=True)

    engine = Engine(data)
    rgb = encode_batch(engine, crops, Preprocessing())
    assert rgb.dtype == np.float32
    np.testing.assert_allclose(rgb, reference(crops, 127.5, 127.5), atol=1e-5)
    bgr = encode_batch(engine, crops, Preprocessing(input_order="bgr", mean=0, scale=1))
    np.testing.assert_allclose(bgr, reference(crops[..., ::-1], 0, 1), atol=1e-5)
    mirrored = encode_batch(engine, crops, Preprocessing(mirror=True))
    both = reference(crops, 127.5, 127.5) + reference(crops[:, :, ::-1], 127.5, 127.5)
    np.testing.assert_allclose(mirrored, both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-5)
    single = encode_batch(Engine(encoder_bytes(d=8, seed=1, batch=1)), crops, Preprocessing())
    np.testing.assert_allclose(single, rgb, atol=1e-6)
