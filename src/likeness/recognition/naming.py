"""What to call an encoder of which only the fingerprint is known."""

from __future__ import annotations

from ..errors import LikenessError
from ..nets import catalogue


def encoder_called(fingerprint: str | None) -> str:
    """`encoder 'face' (8bc6678cc9f53e43)`: its name in the catalogue beside the fingerprint, where it has one there."""
    try:
        name = next((one.name for one in catalogue.entries() if one.fingerprint == fingerprint), None)
    except LikenessError:  # a damaged card of some other weights
        name = None
    return f"encoder {name!r} ({fingerprint})" if name else f"an encoder that is not in the catalogue ({fingerprint})"
