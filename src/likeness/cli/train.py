"""`likeness train recognition|detector DIR -o OUT.safetensors`: every option of the function that trains.

The options are not written down here: they are read from the signature (name, default, type) and the docstring (help)
of `train_recognition` and `train_detector`, so that the command line cannot say anything else than the library.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import MissingDependency
from .common import json_option, print_json, progress_bar

TRAINERS = {
    "recognition": ("metric.training", "train_recognition", "a folder of subjects to an encoder of unit codes"),
    "detector": ("faces.training", "train_detector", "labelled photographs to a face detector"),
}
OUTPUTS = ("out", "output")


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    what = next((word for word in arguments if not word.startswith("-")), None)
    if find_spec("torch") is None and not {"-h", "--help"} & set(arguments):
        raise MissingDependency("training needs torch, which is not installed: pip install 'likeness[torch]'")
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (_, _, line) in TRAINERS.items():
        sub = kinds.add_parser(name, help=line, description=line[0].upper() + line[1:])
        if name == what:  # reading the other's signature would cost another second of imports
            add_options(sub, trainer(name))
        sub.set_defaults(run=run)


def trainer(what: str) -> Callable[..., Any]:
    module, function, _ = TRAINERS[what]
    return getattr(import_module(f"..{module}", __package__), function)


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of `function` that a command line can give: not callbacks and not arrays."""
    hints = inspect.signature(function).parameters
    return {
        name: parameter
        for name, parameter in hints.items()
        if "Callable" not in str(parameter.annotation) and name not in ("on_progress", "cancel")
    }


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """Give `parser` one option per argument of `function`; arguments without a default are required, and positional
    ones stay positional, save `out`, which is -o."""
    texts = described(function)
    for name, parameter in options_of(function).items():
        kind, choices = _kind(parameter)
        required = parameter.default is inspect.Parameter.empty
        text = texts.get(name, "")
        if not required:
            text = f"{text} (default: {_shown(parameter.default)})".strip()
        text = text.replace("%", "%%")
        if name in OUTPUTS:
            flags = ["-o", "--output"]
            parser.add_argument(
                *flags,
                dest=name,
                required=required,
                default=None if required else parameter.default,
                type=Path,
                metavar="FILE",
                help=text,
            )
        elif required and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(name, type=kind, metavar="DIR" if kind is Path else name.upper(), help=text)
        elif kind is bool:
            parser.add_argument(
                _flag(name), default=parameter.default, action=argparse.BooleanOptionalAction, help=text
            )
        elif isinstance(parameter.default, tuple):
            inner = type(parameter.default[0]) if parameter.default else str
            parser.add_argument(
                _flag(name), type=inner, nargs="+", default=parameter.default, help=text, metavar=inner.__name__.upper()
            )
        else:
            parser.add_argument(
                _flag(name),
                type=kind,
                choices=choices,
                required=required,
                help=text,
                default=None if required else parameter.default,
                metavar=None if choices else kind.__name__.upper(),
            )
    json_option(parser)


def described(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each argument: lines `name: text` (or `a, b: text`) and what follows indented."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(function) or "").splitlines():
        found = re.match(r"\s*[`*-]*((?:\w+`?,\s*`?)*\w+)`?\s*:\s+(\S.*)", line)
        if found and all(name in inspect.signature(function).parameters for name in re.findall(r"\w+", found[1])):
            names = re.findall(r"\w+", found[1])
            texts.update(dict.fromkeys(names, found[2]))
        elif names and line.startswith(" ") and line.strip():
            for name in names:
                texts[name] += " " + line.strip()
        else:
            names = []
    return texts


def run(options: argparse.Namespace) -> int:
    function = trainer(options.what)
    values = {name: getattr(options, name) for name in options_of(function)}
    signature = inspect.signature(function)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    keywords = dict(values)
    positional = [
        keywords.pop(name)
        for name, parameter in options_of(function).items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    with progress_bar(f"train {options.what}") as on_progress:
        if "on_progress" in signature.parameters:
            keywords["on_progress"] = on_progress
        result = function(*positional, **keywords)
    report = result.to_dict() if hasattr(result, "to_dict") else {}
    written = next((str(values[name]) for name in OUTPUTS if values.get(name)), None)
    if options.json:
        print_json({"output": written, **report})
    else:
        print(f"trained; weights in {written}" if written else "trained")
        for name, value in report.items():
            if isinstance(value, (int, float, str)):
                print(f"{name}  {value}")
    return 0


def _kind(parameter: inspect.Parameter) -> tuple[Callable[[str], Any], list[str] | None]:
    """The type (and the choices, of a Literal) that a value on the command line is converted to."""
    annotation = str(parameter.annotation)
    if annotation.startswith("Literal["):
        return str, [word.strip(" '\"") for word in annotation[8:].split("]")[0].split(",")]
    if isinstance(parameter.default, (bool, int, float)):
        return type(parameter.default), None
    for word, kind in (("Path", Path), ("bool", bool), ("int", int), ("float", float)):
        if re.search(rf"\b{word}", annotation):
            return kind, None
    return str, None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
