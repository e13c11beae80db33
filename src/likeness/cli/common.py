"""What the verbs share: options whose defaults come from the library's signatures, progress bars, tables, JSON."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidOption

OnProgress = Callable[[int, int, dict[str, Any]], None]

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
    """One line per field; what would fill the screen (a calibration's curves) is for --json."""
    width = max(map(len, record))
    for field, value in record.items():
        if value is not None and not (isinstance(value, (list, dict)) and len(str(value)) > 400):
            print(f"{field.ljust(width)}  {f'{value:.6g}' if isinstance(value, float) else value}")


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


@contextmanager
def progress_bar(label: str) -> Iterator[OnProgress]:
    """An `on_progress` that draws a bar on stderr, from the third second on; numbers in `info` stand behind it."""
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
