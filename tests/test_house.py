"""The rules of the house, checked on the source: who may import whom, what is loaded when, how long a file may be."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import likeness
from likeness import lazy

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "likeness"
FILES = sorted(SOURCE.rglob("*.py"))

# Imports run downwards only; packages on one floor are neighbours and do not know each other.
FLOORS = [
    {"cli"},
    {"server"},
    {"evaluation"},
    {"recognition", "style", "lens"},
    {"metric", "faces"},
    {"samples", "nets"},
    {"lazy"},
    {"errors", "progress"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# The doors between neighbours: (who, what), each said in docs/architecture.md.
DOORS = {
    ("lens", "likeness.recognition.encoder"),
    ("nets", "likeness.samples.files"),
    ("faces", "likeness.metric.loop"),
    ("faces", "likeness.metric.losses"),
    ("faces", "likeness.metric.processes"),
}


def module_of(path: Path) -> str:
    parts = ["likeness", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path, *, hints: bool = True) -> set[str]:
    """Every module that `path` imports, also inside functions, relative names resolved; `hints`: for type hints too."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not hints:
        tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            target = ".".join(filter(None, [base, node.module]))
            for alias in node.names:  # `from .. import errors` names a module, `from ..errors import X` an object
                name = f"{target}.{alias.name}"
                found.add(name if name in MODULES else target)
    return found


def floor_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_run_downwards(path: Path) -> None:
    here = floor_of(module_of(path))
    if here in ("", "__main__"):  # the public face knows everybody
        return
    assert here in FLOOR, f"{path.name}: a new part of the house needs a floor in DESIGN and here"
    for target in imports_of(path):
        there = floor_of(target) if target.startswith("likeness.") else None
        if there is None or there == here or (here, target) in DOORS:
            continue
        assert FLOOR[there] > FLOOR[here], f"{module_of(path)} must not import {target}"


def test_no_circles() -> None:
    graph = {
        name: {target for target in imports_of(path, hints=False) if target in MODULES and target != name}
        for name, path in MODULES.items()
        if name != "likeness"
    }
    for targets in graph.values():
        targets.discard("likeness")
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, "circle: " + " → ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_the_gallery_knows_no_faces() -> None:
    for module, path in MODULES.items():
        if module == "likeness.recognition.gallery" or module.startswith("likeness.recognition.stores"):
            strangers = {name for name in imports_of(path) if name.startswith(("likeness.faces", "PIL"))}
            assert not strangers, f"{module} imports {strangers}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_read_can_run_code(path: Path) -> None:
    """No pickle in any dress: not the modules, not numpy's objects, not torch.load; no eval or exec."""
    banned = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imports_of(path)} & banned
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "torch.load", "torch.save", "torch.jit.load"), called


def test_every_package_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()
    for folder in {path.parent for path in FILES}:
        assert (folder / "__init__.py").exists(), folder


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_after(statement: str, *names: str) -> list[str]:
    return run_python(f"import sys\n{statement}\nprint(*[n for n in {names!r} if n in sys.modules])").split()


def test_importing_likeness_loads_nothing_heavy() -> None:
    assert loaded_after("import likeness", "numpy", "PIL", "onnxruntime", "torch", "tqdm", "sqlite3") == []
    assert loaded_after("import likeness.cli.main", "numpy", "PIL", "onnxruntime", "torch", "tqdm") == []


def test_recognition_never_loads_torch() -> None:
    """Nor onnxruntime before it is needed. Every module of these floors, and what it imports in turn."""
    modules = [name for name in MODULES if floor_of(name) in ("recognition", "evaluation", "samples", "cli")]
    modules += ["likeness.faces.detection", "likeness.nets.engine", "likeness.nets.catalogue"]
    assert loaded_after("import " + ", ".join(modules), "torch", "onnx", "onnxruntime") == []


def test_public_names() -> None:
    named = {"train": "train_recognition", "lens": "likeness.lens"}
    for name in [*likeness.__all__, "train", "stylize"]:
        assert getattr(likeness, name).__name__ == named.get(name, name)
        assert name in dir(likeness)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = likeness.nonsense


def test_a_function_of_the_lens_is_not_hidden_by_the_module_of_its_name() -> None:
    pytest.importorskip("torch")
    code = "import likeness, likeness.lens.attribute as _; print(*[getattr(likeness.lens, n).__name__ for n in {}])"
    names = ["attribute", "top_patches", "compare_samples", "compare"]
    assert run_python(code.format(names)).split() == names
    assert {*names} < {*dir(likeness.lens)}


def test_a_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(likeness.__dict__, "train", raising=False)

    def absent(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(lazy, "import_module", absent)
    with pytest.raises(likeness.MissingDependency, match=r"pip install 'likeness\[torch\]'"):
        _ = likeness.train

    def broken(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(lazy, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="other"):
        _ = likeness.train


def _fastest(*command: str) -> float:
    """Processor seconds of the program, best of five: what it needs, not what else the machine was doing."""
    times = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4 to measure a child")
def test_start_is_quick() -> None:
    bare = _fastest("-c", "pass")
    assert _fastest("-c", "import likeness") - bare < 0.3
    assert _fastest("-m", "likeness", "--help") < 0.5
    assert _fastest("-m", "likeness", "verify", "--help") < 0.5


def test_version_is_the_packages() -> None:
    import tomllib

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == likeness.__version__
