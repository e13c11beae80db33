"""`likeness stylize CONTENT STYLE [STYLE...] -o OUT`: paint a photograph like a picture."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption
from .common import json_option, need_torch, option, print_json, progress_bar, refuse_overwriting

if TYPE_CHECKING:
    from ..style.estimate import Estimate


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    need_torch("stylising")
    from ..style.fast import stylize_fast
    from ..style.pictures import COLOURS, stylize
    from ..style.stylize import stylize_sample

    parser.add_argument("content", metavar="CONTENT", help="the photograph")
    parser.add_argument("styles", metavar="STYLE", nargs="+", help="the picture, or several, to paint it like")
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="where to write the result (.png, .jpg)"
    )
    option(parser, stylize, "--encoder", "a net of `likeness weights list`, or its file", metavar="NAME|FILE", type=str)
    option(parser, stylize, "--size", "longer side of the result, pixels")
    option(parser, stylize_sample, "--steps", "evaluations of J per scale, at most")
    cost_options(parser)
    option(parser, stylize, "--init", "start from content, noise or a picture", metavar="content|noise|FILE")
    option(parser, stylize_sample, "--optimizer", "how to go downhill", choices=("lbfgs", "adam", "gd"))
    parser.add_argument("--blend", metavar="W,...", type=_numbers, default=(), help="weight of each style")
    mask_help = "one per style: where in the content, what of the style (C.png alone: all of it)"
    parser.add_argument("--mask", metavar="C.png[:S.png]", action="append", default=[], type=_pair, help=mask_help)
    option(parser, stylize, "--keep-color", "colours of the content", choices=COLOURS)
    parser.add_argument("--scales", type=int, help="coarse-to-fine scales (default: as many as make sense)")
    option(parser, stylize_sample, "--tile", "exact tiles of N pixels", metavar="auto|N|off", type=_tile)
    memory_help = "memory that may be used, in GB (default: what the machine can give)"
    parser.add_argument("--memory-limit", metavar="GB", type=_bytes, help=memory_help)
    option(parser, stylize_sample, "--precision", "of convolutions", choices=("auto", "fp32", "bf16"))
    option(parser, stylize_sample, "--seed", "of the noise")
    parser.add_argument("--resume", metavar="FILE", type=Path, help="keep the run here, and go on from it")
    parser.add_argument(
        "--preview", metavar="DIR", type=Path, help="write the picture there now and then, as OUT-00025.jpg"
    )
    parser.add_argument("--fast", action="store_true", help="in one pass, by a net for any style")
    option(parser, stylize_fast, "--strength", "with --fast: 0 the content, 1 the style", type=float)
    option(parser, stylize_fast, "--net", "with --fast: a net for any style", metavar="NAME|FILE", type=str)
    parser.add_argument("--estimate", action="store_true", help="say what it would need and choose, and do nothing")
    json_option(parser)
    parser.set_defaults(run=run, defaults=vars(parser.parse_args(["", "", "-o", ""])))


def cost_options(parser: argparse.ArgumentParser) -> None:
    """What J is."""
    from ..style.objective import objective

    option(parser, objective, "--content-weight", "alpha")
    option(parser, objective, "--style-weight", "beta")
    option(parser, objective, "--tv-weight", "gamma, of total variation")
    parser.add_argument("--style-layers", metavar="L=W,...", type=_layers, help="such as relu1_1=.2,relu2_1=.8")
    parser.add_argument("--content-layers", metavar="L=W,...", type=_layers, help="such as relu4_1=1")
    option(parser, objective, "--statistic", "what style is: gram or mean-std")
    option(parser, objective, "--convention", "factors of the cost: per-position, chapter, johnson, gatys-notebook")


def chosen_cost(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `objective` that `cost_options` read."""
    names = ("content_weight", "style_weight", "tv_weight", "statistic", "convention")
    chosen = {name: getattr(options, name) for name in names}
    return chosen | {
        name: getattr(options, name) for name in ("style_layers", "content_layers") if getattr(options, name)
    }


FAST = {"content", "styles", "output", "size", "blend", "keep_color", "fast", "strength", "net", "json"}


def run_fast(options: argparse.Namespace) -> int:
    from ..samples.images import check_output
    from ..style.fast import stylize_fast
    from ..style.pictures import record_of

    refuse_overwriting([options.output, record_of(options.output)], [options.content, *options.styles, options.net])
    check_output(options.output)
    chosen = {name: getattr(options, name) for name in ("net", "size", "strength", "blend", "keep_color")}
    picture = stylize_fast(options.content, options.styles, **chosen)
    picture.save(options.output)
    if options.json:
        print_json({"output": str(options.output), **picture.to_dict()})
    else:
        print(f"{options.output}: {picture.seconds:.2f} s")
    return 0


def _check_fast(options: argparse.Namespace) -> None:
    """Raises InvalidOption for an option that was given but would do nothing."""
    idle = {"strength", "net"} if not options.fast else options.defaults.keys() - FAST
    given = sorted(name for name in idle if name in options and getattr(options, name) != options.defaults[name])
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InvalidOption(f"{flags}: {'not' if options.fast else 'only'} with --fast")


def run(options: argparse.Namespace) -> int:
    _check_fast(options)
    if options.fast:
        return run_fast(options)
    from ..samples.images import check_output, write_image
    from ..style.pictures import estimate_stylize, record_of, stylize, to_image

    names = "encoder size steps init optimizer blend keep_color scales precision seed tile".split()
    chosen: dict[str, Any] = {name: getattr(options, name) for name in names} | chosen_cost(options)
    chosen |= {"masks": options.mask}
    if options.memory_limit is not None:
        chosen |= {"memory_limit": options.memory_limit}
    if options.estimate:
        found = estimate_stylize(options.content, options.styles, **chosen)
        print_json(found.to_dict()) if options.json else print(_told(found, options.optimizer))
        return 0
    read = [
        options.content,
        *options.styles,
        options.encoder,
        options.init,
        *(p for pair in options.mask for p in pair),
    ]
    written = [options.output, record_of(options.output)]
    if options.resume:
        refuse_overwriting([options.resume], [*written, *read])
    refuse_overwriting(written, read)
    check_output(options.output)
    if options.preview:
        refuse_overwriting([options.preview], written)
        options.preview.mkdir(parents=True, exist_ok=True)
        refuse_overwriting(options.preview.glob(f"{options.output.stem}-*.jpg"), [*written, *read])
    with progress_bar("stylize") as bar:

        def on_progress(done: int, total: int, info: dict[str, Any]) -> None:
            if options.preview and done and (done == 5 or done % 25 == 0):
                write_image(options.preview / f"{options.output.stem}-{done:05}.jpg", to_image(info["sample"]()))
            bar(done, total, {"J": info["J"], "scale": info["scale"]})

        try:
            picture = stylize(
                options.content, options.styles, checkpoint=options.resume, on_progress=on_progress, **chosen
            )
        except KeyboardInterrupt:
            kept = options.resume and options.resume.exists()
            how = f"the same command goes on from {options.resume}" if kept else "nothing is kept"
            print(f"\nlikeness: interrupted; {how}", file=sys.stderr)
            raise
    picture.save(options.output)
    if options.resume:  # not before: what is lost while the picture is written is hours
        options.resume.unlink(missing_ok=True)
    result = picture.run
    if options.json:
        print_json({"output": str(options.output), **result.to_dict()})
        return 0
    weighted = ", ".join(f"{name} {value:.4g}" for name, value in result.parts.weighted.items() if value)
    cost = f"J {result.J[0]:.4g} -> {result.parts.J:.4g} ({weighted})"
    print(f"{options.output}: {cost}, {result.steps} evaluations, {result.seconds:.1f} s")
    return 0


def _told(found: Estimate, optimizer: str) -> str:
    shape = " x ".join(map(str, reversed(found.size)))
    ways = [f"{found.scales} scales", f"tiles of {found.tile}" if found.tile else "no tiles"]
    if optimizer == "lbfgs":
        ways.append(f"{found.history} L-BFGS pairs" + (" in bfloat16" if found.compact else ""))
    if found.warm_up:
        ways.append("begun with the slim net")
    memory = f"{found.peak_memory_bytes / 1e6:,.0f} MB of memory"
    if found.memory_limit is not None:
        memory += f" (of {found.memory_limit / 1e6:,.0f})"
    return f"{shape} pixels, {', '.join(ways)}: {memory}, at most {found.seconds:,.0f} s"


def _layers(text: str) -> dict[str, float]:
    parts = [one.partition("=") for one in text.split(",")]
    names = [name.strip() for name, _, _ in parts]
    try:
        if not all(names) or len(set(names)) < len(names):
            raise ValueError("a layer without a name, or named twice")
        return {name: float(weight or 1) for name, (_, _, weight) in zip(names, parts, strict=True)}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form relu1_1=.2,relu2_1=.8: {error}") from error


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as .7,.3") from error


def _pair(text: str) -> tuple[str, ...]:
    region, _, mask = text.rpartition(":") if ":" in text else (text, "", "")
    if not region:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form CONTENT_MASK or CONTENT_MASK:STYLE_MASK")
    return (region, mask) if mask else (region,)


def _bytes(text: str) -> int:
    """Of gigabytes."""
    try:
        size = float(text) * 1e9
    except ValueError:
        size = 0.0
    if not (math.isfinite(size) and size >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of gigabytes above 0, such as 1.5")
    return int(size)


def _tile(text: str) -> int | str | None:
    if text in ("auto", "off"):
        return None if text == "off" else text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, off or a number of pixels") from error
