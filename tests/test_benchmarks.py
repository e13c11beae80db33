"""What benchmarks say beside a figure that has a target, and how they end; no benchmark is run at its full size."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not part of an installed package")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As when a benchmark is run: its folder comes first."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    return module.main()


def test_a_target_is_met_up_to_and_including_its_bound() -> None:
    targets = importlib.import_module("targets")
    most, least = targets.Target("p50", 40, "ms"), targets.Target("rate", 25, least=True)
    assert [most.met({"p50": value}) for value in (39.9, 40, 40.1)] == [True, True, False]
    assert [least.met({"rate": value}) for value in (24.9, 25, 25.1)] == [False, True, True]
    for nothing in ({}, {"p50": None}, {"p50": float("nan")}):
        assert not most.met(nothing)
    assert targets.said((most, least), {"p50": 41, "rate": 30}) == "p50 <= 40 ms NOT met, rate >= 25 met"
    assert targets.said((), {}) == "–"
    assert targets.report((most,), {"p50": 41}) == [{"target": "p50 <= 40 ms", "met": False}]
    assert [targets.status(met, strict=strict) for met, strict in ((True, True), (False, True), (False, False))] == [
        0, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(("milliseconds", "verdict", "strictly"), [(39.0, "met", 0), (41.0, "NOT met", 1)])
def test_speed(
    milliseconds: float,
    verdict: str,
    strictly: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    speed = importlib.import_module("speed")
    assert set(speed.PARTS) == set(speed.COLUMNS) == set(speed.TARGETS)
    figures = dict.fromkeys(speed.COLUMNS["verify"], 1.0) | {"p50_ms": milliseconds}
    monkeypatch.setitem(speed.PARTS, "verify", lambda photos, encoder: figures)
    assert run(speed, monkeypatch, "verify", "--out", tmp_path) == 0
    assert f"p50_ms <= 40 {verdict} |" in capsys.readouterr().out
    assert run(speed, monkeypatch, "verify", "--out", tmp_path, "--strict") == strictly
    kept = json.loads((tmp_path / "verify.json").read_text())
    assert kept["targets"] == [{"target": "p50_ms <= 40", "met": not strictly}]


@pytest.mark.skipif(sys.platform == "win32", reason="needs wait4")
def test_a_childs_peak_is_its_own() -> None:
    """Not that of the process which starts it, however large that is."""
    import subprocess

    lens, speed = importlib.import_module("lens"), importlib.import_module("speed")
    ballast = np.ones(100_000_000)  # 800 MB
    cost = speed.command_cost(["--version"], runs=1)
    assert 5 < cost["peak_rss_mb"] < 150 and min(cost["cpu_s"], cost["p50_s"]) > 0
    assert set(cost) == {"runs", "p50_s", "fastest_s", "cpu_s", "peak_rss_mb"}
    with pytest.raises(SystemExit, match="likeness verify failed: .*A, B"):
        speed.command_cost(["verify"], runs=1)
    command = [sys.executable, "-c", lens.ONE, "2", str(FOLDER)]
    assert 5e7 < int(subprocess.run(command, check=True, capture_output=True).stdout) < ballast.nbytes


def test_the_whole_way_of_identify_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file to the answer: with an encoder of this test and without the cold command."""
    import likeness
    from likeness.recognition import encoder as encoders

    speed = importlib.import_module("speed")
    asked: list[Path] = []

    class Known:
        name, fingerprint, code_length, calibration = "known", "print", 8, None

        def encode(self, source: Path) -> encoders.Encoding:
            asked.append(source)
            return encoders.Encoding((encoders.Template(np.eye(8, dtype=np.float32)[0], "print"),))

    real, commands = likeness.Gallery, []
    cost = {"runs": 1, "p50_s": 1.0, "fastest_s": 1.0, "cpu_s": 1.0, "peak_rss_mb": 1.0}
    monkeypatch.setattr(encoders, "resolve", lambda name: Known())
    monkeypatch.setattr(likeness, "Gallery", lambda path, encoder: real(path, encoder=Known()))
    monkeypatch.setattr(speed, "command_cost", lambda arguments, runs: commands.append(arguments) or cost)
    monkeypatch.setattr(speed, "jpegs", lambda photos, folder, most: [folder / f"{i}.jpg" for i in range(8)])
    found = speed.measure_identify(tmp_path, "known", templates=40, runs=1)
    assert set(speed.COLUMNS["identify"]) <= set(found)
    assert (found["templates"], found["runs"], len(asked)) == (40, 16, 21)
    assert commands[0][0] == "identify" and commands[0][1].endswith("people.db")
    assert found["p50_ms"] > 0 and found["cold_p50_s"] == 1.0


def test_a_small_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = importlib.import_module("gallery")
    small = ("--templates", 60, "--length", 8, "--repeats", 3, "--out", tmp_path)
    assert run(gallery, monkeypatch, *small) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("identify p50  ")]
    met = json.loads((tmp_path / "gallery.json").read_text())["targets"][0]["met"]
    assert line.endswith("identify p50 <= 20 ms " + ("met" if met else "NOT met"))
    monkeypatch.setattr(gallery, "TARGETS", (importlib.import_module("targets").Target("identify p50", 0, "ms"),))
    assert run(gallery, monkeypatch, *small) == 0
    assert run(gallery, monkeypatch, *small, "--strict") == 1
    assert "identify p50 <= 0 ms NOT met" in capsys.readouterr().out


def test_our_detector_is_compared_with_the_reference_of_the_same_run() -> None:
    detector, targets = importlib.import_module("detector"), importlib.import_module("targets")
    ours = {"lfw_recall": 0.996, "wider_recall_10": 0.89, "wider_recall_16": 0.9, "no_face_alarms": 4}
    results = {"ours": ours | {"no_face_pictures": 200}, "yunet": {"wider_recall_10": 0.93, "wider_recall_16": 0.96}}
    found = detector.targets_of_ours(results)
    assert targets.said(found, ours) == (
        "lfw_recall >= 0.995 met, wider_recall_10 >= 0.88 met, wider_recall_16 >= 0.91 NOT met, no_face_alarms <= 4 met"
    )
    assert [target.figure for target in detector.targets_of_ours({"ours": results["ours"]})] == [
        "lfw_recall",
        "no_face_alarms",
    ]
    assert detector.targets_of_ours({"yunet": results["yunet"]}) == ()


def test_promised_error_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_set = importlib.import_module("open_set")
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((120, 16)).astype(np.float32)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    monkeypatch.setattr(open_set, "simulated", lambda people: (codes, np.repeat(np.arange(60), 2)))
    monkeypatch.setattr(open_set, "nearest_strangers", lambda *_: np.array([0.0, 4.0]))  # half of the searches hit
    small = ("--people", 30, "--splits", 1, "--sizes", 10, "--out", tmp_path / "open.json")
    assert run(open_set, monkeypatch, *small) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("FPIR 0.1 at N = 10" in line and line.endswith("mean <= 1 NOT met") for line in lines)
    assert all(line.endswith("–") for line in lines if "independent" in line)
    assert run(open_set, monkeypatch, *small, "--strict") == 1


def test_all_of_them_end_like_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    every = importlib.import_module("run")
    calls: list[list[str]] = []

    def called(command: list[str], check: bool) -> object:
        calls.append(command[1:])
        return type("Done", (), {"returncode": int("gallery" in command[1])})

    monkeypatch.setattr(every.subprocess, "run", called)
    assert run(every, monkeypatch) == 1
    assert all(len(call) == 1 for call in calls)
    calls.clear()
    assert run(every, monkeypatch, "--strict") == 1
    assert [(Path(file).stem, more) for file, more in calls] == [
        ("speed", "--strict"),
        ("gallery", "--strict"),
        ("detector", "--strict"),
        ("style", "--strict"),
        ("estimate", "--strict"),
    ]


def test_a_judge_says_one_of_the_photograph_and_nought_of_what_was_wanted() -> None:
    torch, references = importlib.import_module("torch"), importlib.import_module("references")
    torch.manual_seed(0)
    content, painting = torch.rand(1, 3, 64, 80), torch.rand(1, 3, 64, 80)
    judge = references.Judge(references.squeezenet(), content, painting, painting)
    assert judge(content) == references.Errors(1.0, 0.0)
    assert judge(painting) == references.Errors(0.0, 1.0)


def test_the_compressed_net_is_read_with_its_preprocessing(tmp_path: Path) -> None:
    torch, references = importlib.import_module("torch"), importlib.import_module("references")
    perceptual = importlib.import_module("likeness.nets.perceptual")
    torch.manual_seed(0)
    plain = perceptual.Vgg(perceptual.Architecture(widths=(16, 32, 64, 128), depths=(2, 2, 4, 1)))
    mix, shift = torch.randn(3, 3, 1, 1), torch.randn(3)
    arrays = {name.replace("_", ""): value.numpy() for name, value in plain.state_dict().items()}
    np.savez(tmp_path / "net.npz", **arrays, **{"conv0.weight": mix.numpy(), "conv0.bias": shift.numpy()})
    net = references.read_compressed(tmp_path / "net.npz")
    x = torch.rand(1, 3, 32, 24)
    wanted = plain(torch.nn.functional.conv2d(x, mix, shift))
    assert torch.allclose(net(x), wanted, atol=1e-5 * float(wanted.max()))
    level = references.levelled(net, [x])(x)
    assert torch.allclose(level, wanted / wanted.mean(), atol=1e-4 * float(level.max()))


def test_figures_of_a_sheet() -> None:
    figures = importlib.import_module("sheet_figures")
    assert figures.mean_of([]).said() == "–" and figures.mean_of([0.5]).said("+") == "+0.500"
    assert figures.mean_of([1, 2, 3]) == figures.Mean(2.0, pytest.approx(3**-0.5), 3)
    row, beta = figures.Row, figures.DEFAULT_BETA
    rows = [row(pair, name, None, 1, 0, 0.8) for pair in "ab" for name in (figures.PHOTOGRAPH, figures.PAINTING)]
    rows += [row("a", "ours", beta, 0.2, 0.5, None), row("b", "ours", beta, 0.4, 0.5, 0.9)]
    rows += [row("a", "full", beta, 0.1, 0.4, 0.9), row("b", "full", beta, 0.1, 0.4, 0.9)]
    rows += [row("a", "ours", 2 * beta, 0.1, 0.7, 1.0), row("a", "full", 2 * beta, 0.05, 0.6, 1.0)]
    lines = figures.summary(rows, ("ours", "full"))
    assert lines["ours"]["style"].said() == "0.300 ± 0.100" and lines["ours"]["border"].said() == "0.900"
    assert lines["full less ours"]["content"].said("+") == "-0.100 ± 0.000"
    fronts = figures.fronts_of(rows, ["a"], ("ours", "full"))
    assert [point.beta for point in fronts["a"]["ours"]] == [beta, 2 * beta]
    # Between content errors 0.5 and 0.6 both fall from theirs along 2^(-x / 0.2): full's began 0.1 earlier and at half.
    assert figures.at_equal_content(fronts["a"]["ours"], fronts["a"]["full"]) == pytest.approx(0.5 * 2**-0.5)
    assert figures.at_equal_content(fronts["a"]["ours"], [figures.Point(1, 0.9, 0.1)]) is None


def test_a_small_sheet_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch, references = importlib.import_module("torch"), importlib.import_module("references")
    perceptual, sheet = importlib.import_module("likeness.nets.perceptual"), importlib.import_module("contact_sheet")
    rng = np.random.default_rng(0)
    pictures = [tmp_path / f"{name}.png" for name in ("one", "two", "red", "blue")]
    for path in pictures:
        Image.fromarray(rng.integers(0, 255, (12, 15, 3), np.uint8)).resize((60, 48)).save(path)
    torch.manual_seed(0)
    net = perceptual.Vgg(perceptual.Architecture(widths=(4, 4, 4, 4), depths=(1, 1, 1, 1)))
    perceptual.save(net, tmp_path / "small.safetensors")
    state = {name: value.numpy() for name, value in references.squeezenet().state_dict().items()}
    np.savez(tmp_path / "judge.npz", **state)
    out = tmp_path / "out"
    options = ("--size", 64, "--steps", 2, "--judge", tmp_path / "judge.npz", "--betas", 1e3, "--front-pairs", 1)
    options += ("--contents", *pictures[:2], "--styles", *pictures[2:], "--out", out)
    options += ("--encoders", tmp_path / "small.safetensors", "vgg-slim")
    assert run(sheet, monkeypatch, *options) == 0
    assert "10 pictures, 0 kept from before" in capsys.readouterr().out
    made = {name: (out / name).read_bytes() for name in ("small-sheet.webp", "small-front.svg", "contact_sheet.md")}
    (out / "pictures" / "two--red--vgg-slim--10000.png").unlink()
    assert run(sheet, monkeypatch, *options) == 0
    assert "10 pictures, 9 kept from before" in capsys.readouterr().out
    assert made == {name: (out / name).read_bytes() for name in made}
    found = json.loads((out / "contact_sheet.json").read_text())
    assert found["summary"]["vgg-slim"]["style"]["pairs"] == 4 and list(found["fronts"]) == ["one × red"]
    assert Image.open(out / "small-sheet.webp").width == 1800
    pair = sheet.Pair(out / "inputs" / "two.png", pictures[2], "red", "")
    job = sheet.Job(pair, sheet.encoder_of("vgg-slim", out, ()), 1e4)
    assert [sheet.is_kept(job, out / "pictures", 64, steps) for steps in (2, 3)] == [True, False]
    small = sheet.Job(pair, sheet.encoder_of(str(tmp_path / "small.safetensors"), out, ()), 1e4)
    record = sheet.record_of(out / "pictures" / small.name)
    record.write_text(record.read_text().replace('"warm_up": false', '"warm_up": true'))
    assert not sheet.is_kept(small, out / "pictures", 64, 2)


def test_time_to_a_level_of_j() -> None:
    vgg19 = importlib.import_module("vgg19")
    pair = {
        "plain": [(1.0, 100.0), (2.0, 60.0), (3.0, 70.0), (4.0, 50.0)],
        "fp32": [(0.5, 90.0), (1.5, 52.0), (2.0, 49.0)],
        "auto": [(0.4, 52.0), (0.8, 51.0)],
    }
    assert vgg19.seconds_to(pair["plain"], 60) == 2.0 and vgg19.seconds_to(pair["plain"], 49) is None
    # 1.05 x 50 is 52.5: plain is there after 4 s
    expected = {"fp32 1": 0.5, "fp32 1.05": 1.5 / 4, "auto 1": None, "auto 1.05": 0.1}
    assert vgg19.shares(pair) == expected
    other = {"plain": pair["plain"], "fp32": [(4.0, 50.0)], "auto": [(1.0, 50.0)]}
    assert vgg19.summary([pair, other]) == {"fp32 1": 0.75, "fp32 1.05": (0.375 + 1) / 2, "auto 1.05": (0.1 + 0.25) / 2}


def test_runs_are_kept_for_what_they_were_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the targets are those of all pairs: one alone meets none."""
    vgg19 = importlib.import_module("vgg19")
    made: list[tuple[str, float]] = []

    def measure(options: object, content: str, style: str, method: str, goal: float) -> list[tuple[float, float]]:
        made.append((method, goal))
        return [(1.0, 90.0), (2.0 if method == "plain" else 1.0, 50.0)]

    monkeypatch.setattr(vgg19, "measure", measure)
    monkeypatch.setattr(vgg19, "open_net", lambda name: type("Net", (), {"fingerprint": str(name)}))
    small = ("plain", "fp32", "--pairs", 1, "--out", tmp_path, "--data", tmp_path)
    assert run(vgg19, monkeypatch, *small, "--strict") == 1
    assert made == [("plain", 0.0), ("fp32", 50.0)]
    assert run(vgg19, monkeypatch, *small) == 0 and len(made) == 2
    for other in (("--history", 10), ("--evaluations", 5)):
        with pytest.raises(SystemExit, match="measured with other settings"):
            run(vgg19, monkeypatch, *small, *other)
    with pytest.raises(SystemExit):
        run(vgg19, monkeypatch, "plien", *small)
    assert len(made) == 2
    found = json.loads((tmp_path / "vgg19.json").read_text())
    assert found["shares"] == {"fp32 1": 0.5, "fp32 1.05": 0.5, "pairs": 1}
    assert {one["target"]: one["met"] for one in found["targets"]}["pairs >= 6"] is False


def test_plain_torch_minimises_the_same_j() -> None:
    torch, vgg19 = importlib.import_module("torch"), importlib.import_module("vgg19")
    perceptual, tiling = (
        importlib.import_module("likeness.nets.perceptual"),
        importlib.import_module("likeness.style.tiling"),
    )
    net = perceptual.Vgg(
        perceptual.Architecture(widths=(3, 4, 5, 6), depths=(2, 1, 1, 1), order="bgr", mean=(0.4,), scale=(0.2,))
    )
    content, style = (torch.rand(1, 3, 40, 32, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    x = torch.rand(1, 3, 40, 32, generator=torch.Generator().manual_seed(3)) * 1.4 - 0.2  # some of it out of range
    J, gradient = vgg19.plain_cost(net, content, style)(x)
    ours = vgg19.objective(net, content, [vgg19.Style(style)], style_weight=vgg19.BETA)
    value, expected = tiling.within_range(ours, x, tile=None, low=False)
    assert pytest.approx(value, rel=1e-5) == J
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_peers_lower_the_cost_that_we_do() -> None:
    """The cost that `peers_methods` writes down, and its gradient, for a net that wants red first and one that wants
    blue first."""
    import torch

    from likeness.nets.perceptual import Architecture, Vgg
    from likeness.style.objective import Style, cost_options, objective

    methods = importlib.import_module("peers_methods")
    torch.manual_seed(0)
    content, style, start = torch.rand(1, 3, 24, 32), torch.rand(1, 3, 40, 16), torch.rand(1, 3, 24, 32)
    for order in ("rgb", "bgr"):
        shape = Architecture(widths=(6, 7, 8, 9), depths=(2, 2, 4, 1), order=order, mean=(0.4, 0.5, 0.6), scale=(0.2,))
        net = Vgg(shape)
        J = objective(net, content, [Style(style)])
        theirs = methods.PlainCost(methods.Problem(net, content, style, cost_options()), content, style)
        x = start.clone().requires_grad_(True)
        gradients = [torch.autograd.grad(cost(x), x)[0] for cost in (J, theirs)]
        torch.testing.assert_close(theirs(x), J(x).float(), rtol=1e-4, atol=0)
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4 * float(gradients[0].abs().max()))


def test_plain_goes_no_further_out_of_the_range() -> None:
    """Its gradient is that of `vgg19.plain_cost`: masked where a step would lead a pixel beyond 0...1 further out."""
    import torch

    from likeness.nets.perceptual import Architecture, Vgg
    from likeness.style.objective import cost_options

    methods, vgg19 = importlib.import_module("peers_methods"), importlib.import_module("vgg19")
    net = Vgg(Architecture(widths=(3, 4, 5, 6), depths=(2, 1, 1, 1), mean=(0.4,), scale=(0.2,)))
    content, style = (torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    content = content * 1.4 - 0.2  # some of it out of range, as the walk's pictures are
    problem = methods.Problem(net, content, style, cost_options(style_weight=vgg19.BETA))
    seen: list[torch.Tensor] = []

    def lbfgs(start: torch.Tensor, cost: object, *_: object, **__: object) -> None:
        x = (start + 0.1 * torch.sin(torch.arange(start.numel())).view(start.shape)).requires_grad_(True)
        cost(x).backward()
        seen.extend([x.detach(), x.grad])

    methods._lbfgs = lbfgs  # the module is this test's own
    methods.plain(problem, None, 1)
    x, gradient = seen
    expected = vgg19.plain_cost(net, content, style)(x)[1]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert int(((gradient == 0) & ((x <= 0) | (x >= 1))).sum()) > 50


def test_how_a_peer_goes_from_coarse_to_fine() -> None:
    import torch

    methods = importlib.import_module("peers_methods")
    assert methods.ladder(512) == [128, 181, 256, 362, 512]
    assert methods.ladder(128) == [128] and methods.ladder(96) == [96]
    assert methods.fitted((384, 512), 181) == (136, 181)
    average = methods.Average(torch.zeros(2), decay=0.5)
    average.add(torch.ones(2))
    torch.testing.assert_close(average.value(), torch.full((2,), 2 / 3))  # weights 1/4 and 1/2
    x = torch.rand(1, 3, 8, 8).requires_grad_(True)
    before = torch.optim.Adam([x])
    x.square().sum().backward()
    before.step()
    larger = torch.optim.Adam([torch.rand(1, 3, 11, 11).requires_grad_(True)])
    larger.load_state_dict(methods.enlarged(before.state_dict(), (11, 11)))
    (state,) = larger.state_dict()["state"].values()
    assert state["step"] == 1 and state["exp_avg"].shape == (1, 3, 11, 11) and (state["exp_avg_sq"] >= 0).all()


def test_when_a_peer_reached_what() -> None:
    report, plot = importlib.import_module("peers_report"), importlib.import_module("peers_plot")
    nan = float("nan")
    plain = {"points": [(1, 1, 30.0), (2, 2, nan), (3, 3, 12.0), (4, 4, 14.0), (5, 5, 10.0)]}
    records = {
        "a": {"plain": {**plain, "seconds": 6, "evaluations": 5}, "ours": {**plain, "seconds": 6, "evaluations": 5}},
        "b": {"ours": {"points": [(1, 1, 1.0)], "seconds": 1, "evaluations": 1}},  # without plain: no measure
    }
    records["a"]["ours"]["points"] = [(1, 0.5, 20.0), (2, 1.5, 10.4)]
    curves = report.ratios(records)
    assert curves["plain"] == [[(1, 1, 3.0), (3, 3, 1.2), (5, 5, 1.0), (6, 5, 1.0)]]
    assert report.table(curves).splitlines()[2:] == [
        "| plain L-BFGS | 3 s (3) | 5 s (5) | 5 s (5) | 6 s (5) | 1.000× |",
        "| likeness | 2 s (2) | 2 s (2) | – | 6 s (5) | 1.040× |",
    ]
    assert report.usual([[(1, 1, 1.0)], [(2, 2, 1.0)], [(3, 3, 1.0)]], 1) == (2, 2)
    x, y = plot.median(curves["plain"], 0)
    assert (x[-1], y[-1]) == (6, 1) and (x[1:] >= x[:-1]).all() and (y[1:] <= y[:-1]).all()
    assert plot.spread([0.5, 0.1, 0.12], 0.1) == pytest.approx([0.5, 0.1, 0.2])
    low, high = (np.log(edge) for edge in plot.room(1, 2, 100))
    assert (np.log(2) - low) / (high - low) == pytest.approx(plot.WIDTH, abs=0.01)
    assert (high - np.log(100)) / (high - low) == pytest.approx(plot.WIDTH, abs=0.01)


def test_what_a_peer_chooses_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first run, which does not count, found out is forgotten."""
    from argparse import Namespace

    from likeness.nets.opening import open_net
    from likeness.nets.precision import bfloat16_is_faster

    peers, known = importlib.import_module("peers"), []

    def method(problem: object, watch: object, evaluations: int) -> None:
        known.append(bfloat16_is_faster.cache_info().currsize)
        bfloat16_is_faster()

    monkeypatch.setitem(peers.METHODS, "ours", method)
    pair = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in pair:
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(file)
    peers.measure(Namespace(size=32, evaluations=2), open_net("vgg-slim"), pair, "ours")
    assert known[1] == 0


def test_peers_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from PIL import Image

    peers = importlib.import_module("peers")
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    rng = np.random.default_rng(0)
    files = [tmp_path / "photo.png", tmp_path / "painting.png"]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(file)
    small = ("--size", 32, "--evaluations", 2, "--pair", *files, "--out", tmp_path / "out")
    assert run(peers, monkeypatch, "adam", *small) == 0
    assert "nothing to compare with" in capsys.readouterr().out
    assert run(peers, monkeypatch, *small) == 0
    lines = (tmp_path / "out/peers.md").read_text(encoding="utf-8").splitlines()
    assert lines[4].startswith("| plain L-BFGS | ") and lines[4].endswith(" (2) | 1.000× |")
    assert "plain L-BFGS" in (tmp_path / "out/peers.svg").read_text(encoding="utf-8")
    found = {path.stem.split("-")[1]: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert set(found) | {"ours_fp32"} == set(peers.METHODS)
    assert found["plain"]["points"][0][2] == pytest.approx(found["johnson"]["points"][0][2], rel=1e-4)  # the content
    assert [found[name]["evaluations"] for name in ("plain", "johnson", "adam", "ours_long")] == [2, 2, 4, 2]
    monkeypatch.setattr(peers, "measure", None)  # all is there
    assert run(peers, monkeypatch, *small) == 0
    with pytest.raises(SystemExit, match="other settings"):
        run(peers, monkeypatch, *small, "--evaluations", 3)
