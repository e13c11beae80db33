"""`likeness stylize`: what it refuses before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


def test_the_result_never_replaces_what_is_read(cli: Callable[..., Any], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("content.jpg", "one.jpg", "two.jpg", "vgg.safetensors")]
    for file in files:
        file.write_bytes(b"kept")
    for target in files:
        result = cli("stylize", *files[:3], "--encoder", files[3], "-o", target)
        assert result.status == 2 and "would be replaced" in result.err
    assert {file.read_bytes() for file in files} == {b"kept"}
