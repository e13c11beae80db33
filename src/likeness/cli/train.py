"""`likeness train recognition|perceptual|adain|... DIR -o OUT.safetensors`: every option of the function that trains.

The options are not written down here: they are read from the signature (name, default, type) and the docstring (help)
of `train_recognition` and the others, so that the command line cannot say anything else than the library.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .common import json_option, need_torch, print_json, progress_bar, refuse_overwriting

TRAINERS = {
    "recognition": ("metric.training", "train_recognition", "a folder of subjects to an encoder of unit codes"),
    "discriminant": (
        "metric.discriminant",
        "train_discriminant",
        "an encoder's last layer, solved for on named people",
    ),
    "fine-tuning": ("metric.fine_tuning", "train_fine_tuning", "an encoder's last stages, on named people"),
    "perceptual": ("style.training", "train_perceptual", "pictures and a large VGG to a slim one, for style"),
    "adain": (
        "style.adain_training",
        "train_adain",
        "pictures, paintings and a VGG to a net for any style in one pass",
    ),
    "classifier": ("metric.classification", "train_classifier", "pictures in folders by class to a net to look into"),
    "style": ("style.transform_training", "train_style", "a picture to a net that paints all others like it"),
    "detector": ("faces.training", "train_detector", "labelled photographs to a face detector"),
}
OUTPUTS = ("out", "output")
PLAIN = {"int", "float", "str", "bool", "Path", "os", "PathLike", "None", "tuple", "list", "Sequence"}


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    what = next((word for word in arguments if not word.startswith("-")), None)
    if not {"-h", "--help"} & set(arguments):
        need_torch("training")
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
    """The arguments of `function` that a command line can give: numbers, words and paths, no callbacks or objects."""
    parameters = inspect.signature(function).parameters
    return {name: one for name, one in parameters.items() if _plain(one) and name != "on_progress"}


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """Give `parser` one option per argument of `function`.

    Positional arguments stay positional, keyword ones without a default are required, `out` is -o.
    """
    texts = described(function)
    for name, parameter in options_of(function).items():
        kind, choices = _kind(parameter)
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        text = texts.get(name, "").replace("%", "%%")
        more: dict[str, Any] = {"help": text if default in (None, ()) else f"{text} (default: {_shown(default)})"}
        if required and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            more["nargs"] = "+" if _several(parameter) else None
            parser.add_argument(name, type=kind, metavar=name.upper(), **more)
            continue
        flags = ["-o", "--output"] if name in OUTPUTS else ["--" + name.replace("_", "-")]
        more.update(dest=name, required=required, default=default)
        if kind is bool:
            more["action"] = argparse.BooleanOptionalAction
        else:
            more.update(type=kind, choices=choices, metavar=None if choices else _metavar(kind))
            if _several(parameter):
                more["nargs"] = "+"
        parser.add_argument(*flags, **more)
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
    parameters = options_of(function)
    values = {name: getattr(options, name) for name in parameters}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    by_place = [n for n, parameter in parameters.items() if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    written = next((str(values[name]) for name in OUTPUTS if values.get(name)), None)
    if written is not None:
        given = [value for name, value in values.items() if name not in OUTPUTS]
        words = [one for value in given for one in (value if isinstance(value, tuple) else (value,))]
        refuse_overwriting([written], [one for one in words if isinstance(one, (str, Path))])
    with progress_bar(f"train {options.what}") as on_progress:
        places = [values.pop(name) for name in by_place]
        result = function(*places, **values, **_tools(function), on_progress=on_progress)
    report = result.to_dict() if hasattr(result, "to_dict") else {}
    if options.json:
        print_json({"output": written, **report})
        return 0
    print(f"trained: {written}")
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{name}: " + (", ".join(f"{key} {_shown(part)}" for key, part in value.items()) or "none"))
        elif value is not None and str(value) != written:
            print(f"{name}: {_shown(value)}")
    return 0


def _tools(function: Callable[..., Any]) -> dict[str, Any]:
    """Arguments that no word can give: what aligns photographs, for a function that can use it."""
    if "align" not in inspect.signature(function).parameters:
        return {}
    from ..faces.cropping import crop_of_one

    return {"align": crop_of_one}


def _plain(parameter: inspect.Parameter) -> bool:
    words = _words(parameter)
    return words[:1] == ["Literal"] or (bool(words) and set(words) <= PLAIN)


def _several(parameter: inspect.Parameter) -> bool:
    return bool({"Sequence", "tuple", "list"} & set(_words(parameter)))


def _words(parameter: inspect.Parameter) -> list[str]:
    annotation = parameter.annotation
    return re.findall(r"\w+", annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))


def _kind(parameter: inspect.Parameter) -> tuple[Callable[[str], Any], list[str] | None]:
    """The type (and the choices, of a Literal) that a value on the command line is converted to."""
    words = _words(parameter)
    if words[:1] == ["Literal"]:
        return str, re.findall(r"[\"']([^\"']+)[\"']", parameter.annotation)
    for word, kind in (("Path", Path), ("PathLike", Path), ("bool", bool), ("int", int), ("float", float)):
        if word in words:
            return kind, None
    return str, None


def _metavar(kind: Callable[[str], Any]) -> str:
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "WORD")  # type: ignore[call-overload]


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
