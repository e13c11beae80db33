"""`likeness apply NET PHOTO|FILM|FOLDER -o OUT`: paint with a trained net, in one pass."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidOption, LikenessError
from .common import complain, default_of, json_option, option, print_json, progress_bar, refuse_overwriting


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..style.video import stylize_video

    parser.add_argument("net", metavar="NET", help="a net that `likeness train style` made, or its .onnx export")
    parser.add_argument("source", metavar="PHOTO|FILM|FOLDER", help="what to paint; of a folder every picture below it")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="a file (.png, .jpg, .mp4), or a folder")
    parser.add_argument("--size", type=int, metavar="N", help="longer side of the result, pixels (default: unchanged)")
    option(parser, stylize_video, "--smoothing", "of a film over time, 0 to below 1")
    parser.add_argument(
        "--resume", metavar="DIR", type=Path, help="keep a film's painted frames here, and go on from them"
    )
    json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..samples.video import SUFFIXES
    from ..style.video import stylize_video

    source = Path(options.source)
    if source.suffix.lower() in SUFFIXES and not source.is_dir():
        with progress_bar("apply") as on_progress:
            film = stylize_video(
                options.net,
                source,
                options.output,
                size=options.size,
                smoothing=options.smoothing,
                checkpoint=options.resume,
                on_progress=on_progress,
            )
        if options.json:
            print_json(film.to_dict())
        else:
            calm = "" if film.flicker is None else f", flicker {film.flicker:.2f} x the film's own"
            seconds = f"{film.seconds:.1f} s"
            print(
                f"{film.out}: {film.frames} frames of {film.width} x {film.height}, sound {film.audio}{calm}, {seconds}"
            )
        return 0
    if options.resume or options.smoothing != default_of(stylize_video, "smoothing"):
        raise InvalidOption(f"--resume and --smoothing are for films; {source} is none ({', '.join(sorted(SUFFIXES))})")
    return _pictures(options, source)


def _pictures(options: argparse.Namespace, source: Path) -> int:
    from ..samples.images import write_image
    from ..style.apply import apply, open_net

    places = dict(_places(source, Path(options.output)))
    refuse_overwriting(places.values(), [options.net, *places])
    net = open_net(options.net)
    done: list[dict[str, Any]] = []
    status = 0
    with progress_bar("apply") as on_progress:
        for number, (file, target) in enumerate(places.items(), 1):
            began = time.perf_counter()
            try:
                image = apply(net, file, size=options.size)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_image(target, image)
            except LikenessError as error:
                if not source.is_dir():
                    raise
                complain(file, str(error))
                done.append({"file": str(file), "error": str(error)})
                status = 2
            else:
                height, width = image.shape[:2]
                one = {"file": str(file), "output": str(target), "width": width, "height": height}
                done.append(one | {"seconds": time.perf_counter() - began})
            on_progress(number, len(places), {})
    if options.json:
        print_json(done)
    else:
        for one in done:
            if "output" in one:
                print(f"{one['output']}: {one['width']} x {one['height']}, {one['seconds']:.2f} s")
    return status


def _places(source: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """(picture, where its painting goes): a file's to `output`, a folder's to the same names below `output`."""
    from ..samples.folders import list_images

    if not source.is_dir():
        yield source, output
        return
    files = list_images([source])
    if not files:
        raise InvalidOption(f"{source}: there is no picture in this folder")
    for file in files:
        name = file.relative_to(source)
        plain = file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
        yield file, output / (name if plain else name.with_name(name.name + ".png"))
