"""Files of weights: the same bytes for the same weights, and one named error for every way in which a file can lie."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from safetensors.torch import save as to_bytes  # noqa: E402

from likeness.errors import WeightsError  # noqa: E402
from likeness.faces import net as detector  # noqa: E402
from likeness.metric import heads  # noqa: E402
from likeness.nets import catalogue, identity, weights_file  # noqa: E402
from likeness.samples import files  # noqa: E402

TOWER = identity.Architecture(size=32, widths=(4, 8), blocks=(1, 1), code_length=8)
NET = detector.DetectorArchitecture((4, 4, 8, 8, 8), (0, 0, 0), 8)


def make(kind: str, path: Path) -> tuple[Callable[[Path], Any], dict[str, str], str]:
    """A file of this kind; who reads it, its metadata, and where in them the architecture stands."""
    torch.manual_seed(0)
    if kind == "encoder":
        identity.save(identity.Tower(TOWER), path)
        return identity.load, {identity.KIND: json.dumps(asdict(TOWER))}, identity.KIND
    if kind == "detector":
        detector.save(detector.DetectorNet(NET), path)
        return detector.load, {"kind": detector.KIND, "architecture": json.dumps(asdict(NET))}, "architecture"
    heads.save(heads.PairHead("absolute", 8), path)
    return heads.load, {"kind": heads.KIND, "head": '{"kind": "absolute", "epsilon": 1e-06}'}, "head"


@pytest.mark.parametrize("kind", ["encoder", "detector", "head"])
def test_every_lie_of_a_file_is_a_weights_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    read, metadata, place = make(kind, path)
    read(path)
    tensors = load_file(path)
    for text in ("{", "[1]", "null", '{"nonsense": 1}', '{"widths": 3}', '{"widths": ["a", "b"], "kind": 4}', "\u20ac"):
        save_file(tensors, path, {**metadata, place: text})
        with pytest.raises(WeightsError, match="lie.safetensors"):
            read(path)
    if place != identity.KIND:  # there the place is the kind
        save_file(tensors, path, {name: text for name, text in metadata.items() if name != place})
        with pytest.raises(WeightsError, match="lie.safetensors"):
            read(path)
    name = max(tensors, key=lambda one: tensors[one].numel())
    for wrong in ({**tensors, name: tensors[name][None]}, {**tensors, "stranger": torch.zeros(1)}):
        save_file(wrong, path, metadata)
        with pytest.raises(WeightsError, match="lie.safetensors"):
            read(path)
    save_file({one: value for one, value in tensors.items() if one != name}, path, metadata)
    with pytest.raises(WeightsError, match="lie.safetensors"):
        read(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be read"):
        read(path)


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    """safetensors writes metadata of several keys in an order of chance; here it never shows."""
    tensors = {"b": torch.arange(5.0), "a": torch.ones(2, 3).T}
    metadata = {key: key * 3 for key in "qwertyuiopasdfgh"}
    files = []
    for i, one in enumerate((metadata, dict(reversed(metadata.items())))):
        weights_file.write(tmp_path / str(i), tensors, one)
        files.append((tmp_path / str(i)).read_bytes())
    assert files[0] == files[1]
    found, said = weights_file.read(tmp_path / "0")
    assert said == metadata
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_the_bytes_are_those_of_the_safetensors_library(tmp_path: Path) -> None:
    dtypes = "bool uint8 int8 int16 float16 bfloat16 int32 float32 float64 int64".split()
    tensors = {f"{i % 3}.{name}": torch.arange(2 + i).to(getattr(torch, name)) for i, name in enumerate(dtypes)}
    tensors |= {"none": torch.zeros(0, 3), "one": torch.tensor(2.5), "turned": torch.rand(1, 4, 3, 2).transpose(1, 3)}
    weights_file.write(tmp_path / "x", tensors, {"who": "me"})
    data = (tmp_path / "x").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    only = {weights_file.SEAL: header["__metadata__"][weights_file.SEAL]}
    weights_file.write(tmp_path / "x", tensors, {})  # of more than one key the library's order is by chance
    sealed = {weights_file.SEAL: weights_file._seal(tensors, {})}
    assert only != sealed  # metadata are sealed too
    assert (tmp_path / "x").read_bytes() == to_bytes({k: v.contiguous() for k, v in tensors.items()}, sealed)


@pytest.mark.parametrize("kind", ["encoder", "detector", "head"])
def test_no_bit_changes_unnoticed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    read, _, _ = make(kind, path)
    data = path.read_bytes()
    for place in {*range(0, len(data), 97), *range(len(data) - 40, len(data)), *range(60)}:
        for bit in (0, 6):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises(WeightsError, match="net.safetensors"):
                read(path)


def test_files_of_others_have_no_seal(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "theirs", {"who": "me"})
    assert weights_file.read(tmp_path / "theirs")[1] == {"who": "me"}


def test_tensors_go_to_the_disk_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the largest one is held in memory a second time."""
    written: list[int] = []

    class Disk:
        def write(self, data: Any) -> None:
            written.append(memoryview(data).nbytes)

    monkeypatch.setattr(files, "atomic_write", lambda path, stream: stream(Disk()))
    weights_file.write("x", {name: torch.zeros(1000) for name in "abc"}, {})
    assert written[1:] == [4000, 4000, 4000]


def test_words_of_any_script_leave_the_tensors_in_place(tmp_path: Path) -> None:
    for words in ("", "a", "ÄÖ", "名前", 'quo"te\\', "\n\t", "𝄞"):
        weights_file.write(tmp_path / "x", {"w": torch.arange(3.0)}, {"who": words})
        tensors, metadata = weights_file.read(tmp_path / "x")
        assert metadata == {"who": words} and tensors["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["face", "face-detector"])
def test_what_ships_can_be_read(name: str) -> None:
    path = catalogue.SHIPPED / f"{name}.safetensors"
    read: Callable[[Path], Any] = identity.load if name == "face" else detector.load
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    assert not read(path).training
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
