"""AdaIN against NumPy in float64; the net over 1, 2, 3 dimensions, any size; its training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from likeness.cli.main import main
from likeness.errors import InvalidOption, UnknownName, WeightsError
from likeness.nets.activations import activations
from likeness.nets.engine import Engine
from likeness.nets.perceptual import VGG19, Architecture, Vgg
from likeness.nets.perceptual import load as load_vgg
from likeness.nets.perceptual import save as save_vgg
from likeness.samples.images import write_image
from likeness.style import adain_training
from likeness.style.adain import Adain, Decoder, DecoderArchitecture, adain, export, load, save, statistics, untrained
from likeness.style.adain_training import LAYERS, asked, losses, train_adain
from likeness.style.training import normalised

SIZES = {1: (61,), 2: (37, 50), 3: (17, 24, 19)}


def encoder(dims: int = 2) -> Vgg:
    torch.manual_seed(dims)
    vgg = Vgg(Architecture(dims, widths=(4, 5, 6, 7), depths=(1, 1, 1, 1), mean=(0.5,), scale=(0.25,)))
    for weight in vgg.parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight)
    return vgg


def net(dims: int = 2) -> Adain:
    return untrained(encoder(dims), widths=(4, 5, 6, 7)).eval().requires_grad_(False)


def sample(dims: int, seed: int) -> torch.Tensor:
    return torch.rand(1, 3, *SIZES[dims], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_adain_is_equation_8(dims: int) -> None:
    rng = np.random.default_rng(dims)
    x = rng.normal(1, 2, (2, 5, *SIZES[dims]))
    y = rng.normal(3, 4, (2, 5, *reversed(SIZES[dims])))
    axes = tuple(range(2, x.ndim))

    def moments(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = a.mean(axes, keepdims=True)
        return mean, np.sqrt(((a - mean) ** 2).mean(axes, keepdims=True) + 1e-5)

    (mx, sx), (my, sy) = moments(x), moments(y)
    expected = sy * (x - mx) / sx + my
    given_mean, given_deviation = statistics(torch.tensor(y))
    assert np.allclose(given_mean, my.reshape(2, 5), rtol=1e-12)
    assert np.allclose(given_deviation, sy.reshape(2, 5), rtol=1e-12)
    assert np.abs(adain(torch.tensor(x), given_mean, given_deviation).numpy() - expected).max() < 1e-10


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_a_sample_of_any_size_keeps_its_size(dims: int) -> None:
    content, style = sample(dims, 0), sample(dims, 1)
    made = net(dims).stylize(content, [style])
    assert made.shape == content.shape and made.dtype == torch.float32
    assert float(made.min()) >= 0 and float(made.max()) <= 1
    assert torch.equal(made, net(dims).stylize(content, [style]))


@settings(max_examples=25, deadline=None)
@given(st.integers(16, 70), st.integers(16, 70), st.integers(0, 100))
def test_every_size_from_the_smallest_on_works(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    content = torch.rand(1, 3, height, width, generator=generator)
    made = net().stylize(content, [torch.rand(1, 3, width, height, generator=generator)])
    assert made.shape == content.shape and bool(torch.isfinite(made).all())


def test_strength_leads_from_the_content_to_the_style() -> None:
    model, content, style = net(), torch.rand(1, 3, 32, 40), torch.rand(1, 3, 48, 24)
    a = model.encoder(content)
    mean, deviation = statistics(model.encoder(style))
    for strength in (0.0, 0.3, 1.0):
        mixed = (1 - strength) * a + strength * adain(a, mean, deviation)  # eq. 14
        expected = model.decoder(mixed).clamp(0, 1)
        assert torch.allclose(model.stylize(content, [style], strength=strength), expected, atol=1e-5)


def test_a_blend_mixes_the_stylised_activations() -> None:
    model, content = net(), torch.rand(1, 3, 32, 40)
    styles = [torch.rand(1, 3, 48, 24), torch.rand(1, 3, 32, 32) ** 3]
    a = model.encoder(content)
    mixed = sum(
        weight * adain(a, *statistics(model.encoder(style))) for weight, style in zip((0.75, 0.25), styles, strict=True)
    )  # eq. 15
    expected = model.decoder(mixed).clamp(0, 1)
    assert torch.allclose(model.stylize(content, styles, blend=(3, 1)), expected, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    model, content = net(), torch.rand(1, 3, 32, 40)
    for options in ({"strength": 1.1}, {"strength": float("nan")}, {"blend": (1, 2)}, {"blend": (0,)}):
        with pytest.raises(InvalidOption, match=next(iter(options))):
            model.stylize(content, [content], **options)
    with pytest.raises(InvalidOption, match="style.*at least 16"):
        model.stylize(content, [torch.rand(1, 3, 15, 40)])
    with pytest.raises(InvalidOption, match="content"):
        model.stylize(torch.rand(1, 1, 32, 40), [content])
    with pytest.raises(InvalidOption, match="4 blocks"):
        untrained(encoder(), widths=(4, 5))
    with pytest.raises(InvalidOption, match="same blocks"):
        Decoder(DecoderArchitecture(widths=(4,), depths=(1, 2)))


def test_a_file_gives_the_net_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    model, content, style = net(), torch.rand(1, 3, 32, 40), torch.rand(1, 3, 48, 24)
    save(model, tmp_path / "net.safetensors")
    read = load(tmp_path / "net.safetensors")
    assert torch.allclose(read.stylize(content, [style]), model.stylize(content, [style]), atol=2e-2)
    save(read, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:900])
    save_vgg(encoder(), tmp_path / "vgg.safetensors")
    for name in ("half", "vgg"):
        with pytest.raises(WeightsError, match=name):
            load(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_the_onnx_file_paints_as_the_net_does(dims: int, tmp_path: Path) -> None:
    """Content and style of sizes that the export has not seen, a strength for each of two pictures."""
    save(net(dims), tmp_path / "net.safetensors")
    report = export(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    assert report["max_difference"] <= 1e-4 and report["input"]["strength"] == [None]
    engine = Engine(tmp_path / "net.onnx", inputs=3)
    content, style = sample(dims, 0), sample(dims, 1)[..., :-3]
    both = [torch.cat([one, one.flip(-1)]).numpy() for one in (content, style)]
    (made,) = engine.run(*both, np.array([0.3, 1.0], np.float32))
    kept = load(tmp_path / "net.safetensors")
    for one, (turned, strength) in zip(made, ((False, 0.3), (True, 1.0)), strict=True):
        pair = [x.flip(-1) if turned else x for x in (content, style)]
        want = kept.stylize(pair[0], [pair[1]], strength=strength)
        np.testing.assert_allclose(one, want[0], atol=1e-4)


def test_export_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(net(), tmp_path / "net.safetensors")
    words = ["weights", "export", str(tmp_path / "net.safetensors"), "-o", str(tmp_path / "net.onnx"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["input"]["style"] == [None, 3, None, None]
    with pytest.raises(WeightsError, match=r"has 3 \(image, style, strength\)"):
        Engine(tmp_path / "net.onnx")


@pytest.mark.parametrize("number", [2, 3])
def test_the_losses_are_equations_12_and_13(number: int) -> None:
    """With AdaIN at relu3_1 and at relu4_1."""
    vgg = encoder().double()
    content, style, made = (torch.rand(2, 3, 32, 32, dtype=torch.float64) for _ in range(3))
    x, wanted = asked(vgg, content, style, LAYERS[number])

    def maps(pictures: torch.Tensor) -> list[np.ndarray]:
        from likeness.nets.activations import activations

        return [a.numpy() for a in activations(vgg, pictures, LAYERS).values()]

    def deviation(a: np.ndarray) -> np.ndarray:
        return np.sqrt(a.var((2, 3)) + 1e-5)

    of_made, of_style = maps(made), maps(style)
    target = adain(torch.tensor(maps(content)[number]), *statistics(torch.tensor(of_style[number]))).numpy()
    assert np.allclose(x.numpy(), target, atol=1e-12)
    expected = [
        ((g.mean((2, 3)) - s.mean((2, 3))) ** 2 + (deviation(g) - deviation(s)) ** 2).mean()
        for g, s in zip(of_made, of_style, strict=True)
    ]
    content_loss, style_loss = losses(vgg, made, LAYERS[number], *wanted)
    assert float(content_loss) == pytest.approx(((of_made[number] - target) ** 2).mean(), rel=1e-10)
    assert float(style_loss) == pytest.approx(sum(expected), rel=1e-10)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adain")
    for kind, name in (("pictures", "astronaut"), ("pictures", "coffee"), ("styles", "rocket")):
        image = getattr(photographs, name)()
        (root / kind).mkdir(exist_ok=True)
        for i in range(12):
            write_image(root / kind / f"{name}{i}.png", image[20 * i : 20 * i + 64, 20 * i : 20 * i + 64])
    samples = [torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    save_vgg(normalised(encoder(), samples), root / "vgg.safetensors")
    return {"pictures": root / "pictures", "styles": root / "styles", "encoder": root / "vgg.safetensors"}


SMALL: dict[str, Any] = {"widths": (4, 5, 6), "size": 32, "batch": 4, "warmup": 3, "precision": "fp32", "lr": 5e-3}
DEEP = {"layer": "relu4_1", "widths": (4, 5, 6, 7)}


@pytest.mark.parametrize("deep", [{}, DEEP], ids=["relu3_1", "relu4_1"])
def test_training_lowers_both_losses(folders: dict[str, Path], tmp_path: Path, deep: dict[str, Any]) -> None:
    pictures, styles, options = folders["pictures"], folders["styles"], SMALL | {"encoder": folders["encoder"]} | deep
    short, long = (
        train_adain(pictures, styles, out=tmp_path / str(n) / "net.safetensors", steps=n, every=n, **options)
        for n in (2, 60)
    )
    assert long.content < 0.95 * short.content and long.style < 0.8 * short.style
    made = load(tmp_path / "60" / "net.safetensors").stylize(torch.rand(1, 3, 33, 40), [torch.rand(1, 3, 32, 32)])
    assert made.shape == (1, 3, 33, 40)
    assert load(tmp_path / "60" / "net.safetensors").step == (8 if deep else 4)


def test_a_whole_vgg19_ends_where_its_statistics_are_taken(folders: dict[str, Path], tmp_path: Path) -> None:
    vgg = Vgg(Architecture(widths=(4, 4, 4, 4, 4), depths=VGG19, mean=(0.5,), scale=(0.25,)))
    save_vgg(vgg, tmp_path / "vgg19.safetensors")
    options = SMALL | DEEP | {"encoder": tmp_path / "vgg19.safetensors", "steps": 1, "every": 1}
    train_adain(folders["pictures"], folders["styles"], out=tmp_path / "net.safetensors", **options)
    assert load(tmp_path / "net.safetensors").encoder.architecture.depths == (2, 2, 4, 1)


def test_a_quarter_of_the_pictures_are_their_own_style(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of 8 the last two: what is asked of them is what they are, and their pixels count."""
    seen: dict[str, Any] = {}

    def fit(net_: Any, batch: Any, objective: Any, **options: Any) -> None:
        generator = torch.Generator().manual_seed(3)
        target, context = batch(0, generator)
        pictures = torch.rand(8, 3, 32, 32, generator=generator)
        seen.update(target=target, context=context, pictures=pictures, terms=objective(pictures, context, generator))

    monkeypatch.setattr(adain_training, "fit", fit)
    options = SMALL | {"batch": 8, "encoder": folders["encoder"], "style_weight": 3.0, "identity_weight": 7.0}
    with pytest.raises(TypeError):  # nothing was trained: there are no figures
        train_adain(folders["pictures"], folders["styles"], out=tmp_path / "a.safetensors", **options)
    contents, itself, *rest = seen["context"]
    assert itself.tolist() == [False] * 6 + [True] * 2
    vgg = load_vgg(folders["encoder"])
    off = (activations(vgg, contents, ["relu3_1"])["relu3_1"] - seen["target"]).square().mean((1, 2, 3))
    assert float(off[:6].min()) > 1e-3 > 1e-6 > float(off[6:].max())
    content, style = losses(vgg, seen["pictures"], "relu3_1", *rest)
    identity = np.square(seen["pictures"][6:].double().numpy() - contents[6:].double().numpy()).mean()
    expected = float(content) + 3 * float(style) + 7 * identity
    assert float(seen["terms"].loss) == pytest.approx(expected, rel=1e-5)


def test_a_resumed_training_ends_in_the_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    def stop(done: int, total: int, info: dict[str, Any]) -> None:
        if "loss" in info and done == 5:
            raise KeyboardInterrupt

    places = folders["pictures"], folders["styles"]
    options = SMALL | {"steps": 8, "every": 4, "encoder": folders["encoder"]}
    train_adain(*places, out=tmp_path / "whole.safetensors", **options)
    options["checkpoint"] = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_adain(*places, out=tmp_path / "half.safetensors", on_progress=stop, **options)
    train_adain(*places, out=tmp_path / "half.safetensors", **options)
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_training_goes_on_from_a_net_of_its_kind_only(folders: dict[str, Path], tmp_path: Path) -> None:
    places, options = (folders["pictures"], folders["styles"]), SMALL | {"encoder": folders["encoder"]}
    first = tmp_path / "first.safetensors"
    long = train_adain(*places, out=first, steps=60, every=60, **options)
    on = train_adain(*places, out=tmp_path / "on.safetensors", steps=1, every=1, init=first, **(options | {"lr": 1e-9}))
    assert on.style == pytest.approx(long.style, rel=0.02)  # the file's kernels are float16
    save(net(), tmp_path / "other.safetensors")
    with pytest.raises(InvalidOption, match="another encoder"):
        train_adain(*places, out=first, steps=1, init=tmp_path / "other.safetensors", **options)


def test_a_finished_training_says_its_figures_again(folders: dict[str, Path], tmp_path: Path) -> None:
    options = SMALL | {"encoder": folders["encoder"], "steps": 2, "every": 1, "checkpoint": tmp_path / "run"}
    first, again = (
        train_adain(folders["pictures"], folders["styles"], out=tmp_path / "net.safetensors", **options) for _ in "ab"
    )
    assert first == again


def test_too_few_pictures_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for options, message in (
        ({"size": 96}, "0 pictures"),
        ({"size": 36}, "multiple of 8"),
        ({"layer": "relu3_2"}, "did you mean 'relu3_1'"),
        ({"widths": (4,)}, "3 block"),
    ):
        with pytest.raises((InvalidOption, UnknownName), match=message):
            train_adain(
                folders["pictures"],
                folders["styles"],
                out=tmp_path / "net.safetensors",
                **(SMALL | {"steps": 1, "encoder": folders["encoder"]} | options),
            )
