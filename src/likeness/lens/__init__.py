"""What a net sees: the patches that excite its units, what a score answers to, why two samples match.

The public names; nothing is defined here. Each is loaded when it is first used, as all but `compare` need torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..lazy import load

if TYPE_CHECKING:
    from .attribute import attribute as attribute
    from .comparing import compare_samples as compare_samples
    from .dashboard import report as report
    from .invert import invert as invert
    from .matching import compare as compare
    from .maximize import maximize as maximize
    from .models import open_model as open_model
    from .patches import top_patches as top_patches

# public name -> (module, name there)
_LAZY = {
    "attribute": ("attribute", "attribute"),
    "compare": ("matching", "compare"),
    "compare_samples": ("comparing", "compare_samples"),
    "invert": ("invert", "invert"),
    "maximize": ("maximize", "maximize"),
    "open_model": ("models", "open_model"),
    "report": ("dashboard", "report"),
    "top_patches": ("patches", "top_patches"),
}


class _Lens(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        """Importing the module `attribute` sets it here as an attribute: it must not hide the function of its name."""
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Lens


def __getattr__(name: str) -> Any:
    value = load(__name__, _LAZY, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
