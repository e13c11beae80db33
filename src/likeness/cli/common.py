"""What the verbs share: options whose defaults come from the library's signatures, progress bars, tables, JSON."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from ..errors import InvalidOption, MissingDependency
from ..progress import Progress

LINE_EVERY = 10.0  # seconds between two lines about progress in a log
JSON_HELP = "print JSON instead of text"


def default_of(function: Callable[..., Any], name: str) -> Any:
    """The default that `function`'s signature gives its argument `name`: the one place where defaults are written."""
    return inspect.signature(function).parameters[name].default


def option(parser: argparse.ArgumentParser, function: Callable[..., Any], flag: str, help: str, **more: Any) -> None:
    """Add `flag` (--max-fmr) with the default and type that `function` has for that argument (max_fmr)."""
    default = default_of(function, more.pop("argument", flag.lstrip("-").replace("-", "_")))
    more.setdefault("type", type(default))
    parser.add_argument(flag, default=default, help=f"{help} (default: {default})", **more)


def encoder_option(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    option(parser, function, "--encoder", "name of the encoder's weights, see `likeness weights list`", metavar="NAME")


def need_torch(what: str) -> None:
    """Raises MissingDependency, before anything is read, where torch is not installed."""
    if find_spec("torch") is None:
        raise MissingDependency(f"{what} needs torch, which is not installed: pip install 'likeness[torch]'")


def model_options(parser: argparse.ArgumentParser) -> None:
    """Which net is looked into, and the size of pictures it is shown."""
    parser.add_argument(
        "model", metavar="MODEL", help="name of a net (likeness weights list), or a safetensors file of one"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of the pictures, for nets that take any (a classifier's own, else 224)",
    )


def json_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def print_json(value: Any) -> None:
    """One JSON value on stdout. NaN is not JSON, so it would be an error here rather than in the reader's parser."""
    print(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns: numbers to the right, words to the left; None is an empty cell."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) and bool(cells) for i in range(len(header))]
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(header)]
    for row in [list(header), *cells]:
        line = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(line).rstrip())


def print_fields(record: dict[str, Any]) -> None:
    """One line per field; what has no value is left out, and what would fill the screen is for --json."""
    rows = [(name.replace("_", " "), text) for name, value in record.items() if (text := _field(value)) is not None]
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name.ljust(width)}  {text}")


def size_of(count: int | None) -> str | None:
    """`3.8 MB (3,969,352 bytes)`; None of what is not known before it is fetched."""
    if count is None:
        return None
    large = f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
    return f"{large} ({count:,} bytes)"


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """An `on_progress` that draws a bar on stderr, from the third second on; numbers in `info` stand behind it.

    Where stderr is no terminal but a log, it gets a whole line every ten seconds instead.
    """
    if not sys.stderr.isatty():
        yield _lines(label)
        return
    from tqdm import tqdm

    def start(total: int) -> Any:
        return tqdm(desc=label, total=total, delay=2, file=sys.stderr, dynamic_ncols=True, leave=False)

    bar = start(0)

    def on_progress(done: int, total: int, info: dict[str, Any]) -> None:
        nonlocal bar
        if done < bar.n:  # a new stage counts from the start again
            bar.close()
            bar = start(total)
        bar.total = total
        bar.set_postfix({name: _short(value) for name, value in info.items()}, refresh=False)
        bar.update(done - bar.n)

    try:
        yield on_progress
    finally:
        bar.close()


def _lines(label: str) -> Progress:
    due = time.monotonic() + LINE_EVERY

    def on_progress(done: int, total: int, info: dict[str, Any]) -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            due = now + LINE_EVERY
            more = "".join(f", {name} {_short(value)}" for name, value in info.items())
            print(f"{label}: {done} of {total}{more}", file=sys.stderr, flush=True)

    return on_progress


def refuse_overwriting(targets: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """InvalidOption where writing one of `targets` would replace one of the files that are read."""
    from ..samples.files import overwritten

    if found := overwritten(targets, inputs):
        raise InvalidOption(f"{found} is one of the files that are read and would be replaced: choose another place")


def complain(path: object, message: str) -> None:
    """One picture of many failed: say so on stderr and go on."""
    text = message if message.startswith(str(path)) else f"{path}: {message}"
    print("likeness: error: " + " ".join(text.split()), file=sys.stderr)


def number(value: float | None, digits: int = 4) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _field(value: Any) -> str | None:
    if value is None or (isinstance(value, (list, dict, str)) and not value):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_field(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(str(_field(one)) for one in value) if len(str(value)) <= 400 else None
    return str(value)


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
