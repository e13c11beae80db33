"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real faces, pictures and reference weights; skips where it does not exist."""
    folder = Path(os.environ.get("LIKENESS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found: set LIKENESS_DATA (looked at {folder})")
    return folder
