"""The wheel alone, in a fresh environment, without torch: what a user of `pip install likeness` gets."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*words: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env=env, cwd=cwd, timeout=900, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("no package registry to fetch the build backend from")
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = folder.glob("likeness-*.whl")
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the wheel and its core dependencies."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    venv.create(folder, with_pip=True)
    where = folder / ("Scripts" if os.name == "nt" else "bin")
    done = run(where / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    assert done.returncode == 0, done.stderr[-2000:]
    return where


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cbook = pytest.importorskip("matplotlib.cbook")
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as portrait:
        portrait.save(folder / "grace.jpg", quality=92)
        portrait.resize((340, 400)).save(folder / "grace-2.jpg", quality=60)
    Image.fromarray(data.astronaut()).save(folder / "eileen.jpg", quality=92)
    return folder


def test_the_wheel_is_small_and_complete(wheel: Path) -> None:
    assert wheel.stat().st_size <= 20_000_000
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("face.onnx", "face.json", "face.calibration.json", "face-detector.onnx", "face-detector.json"):
        assert f"likeness/weights/{name}" in names
    assert "likeness/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "docs"))]


def test_no_torch_came_along(bin_folder: Path) -> None:
    done = run(bin_folder / "python", "-m", "pip", "list", "--format=json")
    packages = {package["name"].lower() for package in json.loads(done.stdout)}
    assert {"likeness", "numpy", "pillow", "onnxruntime", "safetensors", "tqdm"} <= packages
    assert not packages & {"torch", "onnx", "scipy", "opencv-python", "matplotlib", "scikit-image"}


def test_recognition_works_without_torch(bin_folder: Path, photos: Path, tmp_path: Path) -> None:
    env = {**os.environ, "LIKENESS_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}

    def likeness(*words: object, status: int = 0) -> Any:
        done = run(bin_folder / "likeness", *words, "--json", env=env, cwd=tmp_path)
        assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    (detected,) = likeness("detect", photos / "grace.jpg")
    assert len(detected["faces"][0]["landmarks"]) == 5
    assert likeness("verify", photos / "grace.jpg", photos / "grace-2.jpg")["decision"] == "match"
    assert likeness("verify", photos / "grace.jpg", photos / "eileen.jpg", status=1)["decision"] == "no match"
    why = likeness("lens", "compare", photos / "grace.jpg", photos / "grace-2.jpg", "-o", tmp_path / "why.png")
    assert why["decision"] == "match" and why["a"]["explained"] > 0.99 and (tmp_path / "why.png").is_file()
    db = tmp_path / "people.db"
    likeness("gallery", "enroll", db, "Grace Hopper", photos / "grace.jpg")
    likeness("gallery", "enroll", db, "Eileen Collins", photos / "eileen.jpg")
    (found,) = likeness("identify", db, photos / "grace-2.jpg")
    assert found["faces"][0]["subject"] == "Grace Hopper"
    assert likeness("gallery", "verify", db, "Grace Hopper", photos / "grace-2.jpg")["decision"] == "match"
    likeness("gallery", "forget", db, "Grace Hopper")
    (found,) = likeness("identify", db, photos / "grace-2.jpg")
    assert found["faces"][0]["subject"] is None
    assert likeness("gallery", "stats", db)["subjects"] == 1
    assert likeness("encode", photos, "-o", tmp_path / "codes.npz")["codes"] == 3
    assert {"face", "face-detector"} <= {entry["name"] for entry in likeness("weights", "list")}


@pytest.mark.parametrize("words", [["train"], ["train", "recognition", "people", "-o", "enc.safetensors"]])
def test_training_says_what_to_install(bin_folder: Path, words: list[str]) -> None:
    done = run(bin_folder / "likeness", *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("likeness: error: ") and "pip install 'likeness[torch]'" in done.stderr
    code = "import likeness\ntry: likeness.train\nexcept likeness.MissingDependency as e: print(e)"
    assert "pip install 'likeness[torch]'" in run(bin_folder / "python", "-c", code).stdout
