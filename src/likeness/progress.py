"""How every long call tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[int, int, dict[str, Any]], None]
"""`on_progress(done, total, info)`; `info` holds figures by name. What it raises ends the call (cancel)."""
