"""Public names that are loaded when they are first used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .errors import MissingDependency


def load(package: str, table: Mapping[str, tuple[str, str]], name: str) -> Any:
    """The public name `name` of `package`; table: public name -> (module, name there).

    Raises AttributeError for a name there is none of, MissingDependency where what it needs is not installed.
    """
    if name not in table:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, attribute = table[name]
    try:
        return getattr(import_module(f".{module}", package), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "onnx"):
            raise MissingDependency(
                f"{package}.{name} needs {error.name}, which is not installed: pip install 'likeness[torch]'"
            ) from None
        raise
