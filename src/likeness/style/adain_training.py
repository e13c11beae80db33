"""`likeness train adain`: the decoder that makes pictures of an encoder's activations, for any style in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption, at_least
from ..metric.loop import Schedule, fit, seeded
from ..metric.losses import Terms
from ..nets import digest
from ..nets.activations import activations
from ..nets.perceptual import Vgg, until
from ..progress import Progress
from ..samples.files import writable
from .adain import Adain, Decoder, adain, load, save, statistics, untrained
from .checks import check_layers, known
from .pictures import open_encoder
from .training import LAYERS, as_samples, of_pictures, practice, random_crop

BRUSHES = 4.0  # paintings are shrunk by up to this factor, so that strokes come in many sizes


@dataclass(frozen=True)
class TrainedAdain:
    """Where the net is, and its losses on held-out pictures: content (eq. 12) and style (eq. 13)."""

    out: str
    steps: int
    content: float
    style: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_adain(
    pictures: Path,
    styles: Path,
    *,
    out: Path,
    encoder: str = "vgg-slim",
    more_pictures: Sequence[str] = (),
    layer: str = "relu3_1",
    widths: tuple[int, ...] = (32, 64, 128),
    steps: int = 6000,
    batch: int = 8,
    size: int = 128,
    style_weight: float = 2.0,
    identity_weight: float = 50.0,
    init: Path | None = None,
    lr: float = 2e-3,
    warmup: int = 100,
    every: int = 500,
    seed: int = 0,
    precision: str = "auto",
    optimizer: str = "muon",
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedAdain:
    """Train a decoder for an encoder of the VGG family; write both to `out`.

    The loss is `L_c + style_weight L_s` (Huang & Belongie 2017, eq. 11): L_c the mean squared difference of the
    picture's activations at `layer` to those that were asked for, L_s that of the mean and deviation per channel of
    relu1_1 ... relu4_1 to the style's. Half of the styles are crops of paintings, a quarter crops of other pictures (a
    texture is a texture). The rest are the contents themselves, which must come back: `identity_weight` times the mean
    squared difference of pixels, 0...1, is added for them (Park & Lee 2019, eq. 7), and outlines stay where they were.

    pictures: a folder of pictures or a zip of them; every 20th is held out.
    styles: a folder or a zip of paintings; every 20th is held out.
    out: the safetensors file to write.
    encoder: a perceptual net of the catalogue, or its file; it stays as it is.
    layer: where the net's encoder ends and AdaIN acts: relu4_1 as in the paper for a VGG-19, whose 512 channels there
        are 8 numbers per pixel; of a slim VGG's relu4_1, which are 2, no decoder could make the picture again.
    more_pictures: further folders or zips.
    widths: channels of the decoder's blocks from the finest to the coarsest.
    steps: optimiser steps in all.
    batch: pairs per step.
    size: side of a crop in pixels.
    style_weight: lambda of eq. 11. (The paper's 10 belongs to another VGG's activations; with ours, of mean 1, content
        is lost.)
    identity_weight: of the pixels of pictures that are their own style.
    init: a net of the same widths and encoder to go on from.
    lr: peak learning rate.
    warmup: steps of linear warm-up before the cosine.
    every: steps between checkpoints and looks at the held-out pictures.
    seed: of everything that is drawn.
    precision: fp32, bf16, or auto for what a short probe finds faster.
    optimizer: muon or adamw.
    checkpoint: a folder; an interrupted run goes on from it.

    Raises UnreadableFile for pictures and WeightsError for an encoder that cannot be read, InvalidOption for options
    that cannot be and for a checkpoint of another run, StorageError where `out` cannot be written.
    """
    at_least(1, batch=batch)
    judge = until(open_encoder(encoder), LAYERS[-1])
    check_layers(judge, LAYERS)
    known(layer, LAYERS, "layer")
    net = until(judge, layer)
    out = writable(out)
    train, unseen = practice([pictures, *more_pictures], size, on_progress)
    painted, unseen_styles = practice([styles], size, on_progress, least=1)
    with seeded(seed):
        model = untrained(net, widths=widths)
    if init is not None:
        model.decoder.load_state_dict(_decoder(init, model).state_dict())

    def make_batch(step: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, ...]]:
        itself = torch.arange(batch) >= batch - batch // 4
        crops = [random_crop(train, size, generator) for _ in range(batch)]
        crops += [random_crop(painted, size, generator, shrink=BRUSHES) for _ in range(batch // 2)]
        crops += [random_crop(train, size, generator) for _ in range(batch - batch // 2 - int(itself.sum()))]
        contents = as_samples(crops[:batch])
        target, wanted = asked(judge, contents, torch.cat([as_samples(crops[batch:]), contents[itself]]), layer)
        return target, (contents, itself, *wanted)

    def objective(pictures: Tensor, wanted: tuple[Tensor, ...], _: torch.Generator) -> Terms:
        contents, itself, *rest = wanted
        content, style = losses(judge, pictures, layer, *rest)
        off = (pictures - contents).square().mean((1, 2, 3))
        identity = (off * itself).sum() / itself.sum().clamp(min=1)
        parts = {"content": content, "style": style, "identity": identity}
        total = content + style_weight * style + identity_weight * identity
        return Terms(total, {name: float(part.detach()) for name, part in parts.items()})

    figures: dict[str, float] = {}
    held = torch.Generator().manual_seed(seed)
    tests = [
        (random_crop(unseen, size, held), random_crop(unseen_styles, size, held, shrink=BRUSHES)) for _ in range(32)
    ]

    def keep(averaged: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(averaged, Decoder)
        with torch.no_grad():
            photographs, paintings = (as_samples([pair[i] for pair in tests]) for i in (0, 1))
            x, wanted = asked(judge, photographs, paintings, layer)
            content, style = losses(judge, averaged(x), layer, *wanted)
        figures.update(content=float(content), style=float(style))
        save(Adain(net, averaged), out)
        return {f"held_out_{name}": value for name, value in figures.items()}

    fit(
        model.decoder,
        make_batch,
        objective,
        schedule=Schedule(steps, lr, warmup),
        seed=seed,
        checkpoint=checkpoint,
        options={
            "encoder": digest.of_net(judge),
            "pictures": of_pictures(train),
            "styles": of_pictures(painted),
            "layer": layer,
            "style_weight": style_weight,
            "identity_weight": identity_weight,
            "size": size,
            "batch": batch,
            "init": init and str(init),
        },
        every=every,
        precision=precision,
        optimizer=optimizer,
        weight_decay=0.0,
        on_checkpoint=keep,
        on_progress=on_progress,
    )
    return TrainedAdain(str(out), steps, **figures)


@torch.no_grad()
def asked(judge: Vgg, content: Tensor, style: Tensor, layer: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What the decoder is given, and with it what its picture must show: AdaIN's activations (b, channels, *spatial)
    at `layer`, and (those, the style's mean and deviation per layer (2, b, c))."""
    found = activations(judge, style, LAYERS)
    wanted = [statistics(found[one]) for one in LAYERS]
    target = adain(activations(judge, content, [layer])[layer], *wanted[LAYERS.index(layer)])
    # the loop may share a batch among processes: what is shared has the samples in front
    return target, (target, *(one.transpose(0, 1) for one in wanted))


def losses(judge: Vgg, pictures: Tensor, layer: str, target: Tensor, *wanted: Tensor) -> tuple[Tensor, Tensor]:
    """L_c (eq. 12) at `layer` and L_s (eq. 13) of `pictures` (b, 3, *spatial), both as means over channels. target,
    wanted: of `asked`; of each layer the style's mean and deviation (b, 2, c)."""
    found = activations(judge, pictures, LAYERS)
    content = (found[layer] - target).square().mean()
    style = [
        (statistics(found[name]) - one.transpose(0, 1)).square().sum(0).mean()
        for name, one in zip(LAYERS, wanted, strict=True)
    ]
    return content, torch.stack(style).sum()


def _decoder(path: Path, wanted: Adain) -> Decoder:
    """The decoder of a net that has the same encoder and widths as `wanted`. Raises InvalidOption for any other."""
    found = load(path)
    theirs, ours = found.encoder.state_dict(), wanted.encoder.state_dict()
    alike = theirs.keys() == ours.keys() and all(torch.allclose(theirs[name], ours[name], atol=1e-2) for name in ours)
    if not alike or found.decoder.architecture != wanted.decoder.architecture:
        raise InvalidOption(f"{path} has another encoder or other widths; init must be a net of the same kind")
    return found.decoder
