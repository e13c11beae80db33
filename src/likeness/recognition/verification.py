"""1:1: do two photographs show the same person?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..samples.images import ImageSource
from .decision import UNREADABLE, Decision, decide, distance, rate, undecided

if TYPE_CHECKING:
    from .encoder import Encoder


def verify(a: ImageSource, b: ImageSource, *, max_fmr: float = 1e-3, encoder: str | Encoder = "face") -> Decision:
    """Whether photographs `a` and `b` (paths, bytes, arrays, PIL images) show the same person.

    `max_fmr`: how often two different people may pass as one, at most. `encoder`: a name in the catalogue, or an
    encoder. Each photograph stands for the face that dominates it.

    The decision is "cannot decide" with its reasons where one of them has no single good face, and, with the distance,
    where the encoder was never calibrated; `reasons_a` and `reasons_b` say which photograph a reason is about.
    Raises UnreadableFile, TooManyPixels, UnknownName, WeightsError, InvalidOption (max_fmr).
    """
    from .encoder import resolve

    max_fmr = rate("max_fmr", max_fmr)  # before any work is done
    coder = resolve(encoder)
    found = list(coder.encode_many([a, b]))  # side by side: half the time of one after the other
    for i, source in enumerate((a, b)):
        if UNREADABLE in found[i].reasons:
            found[i] = coder.encode_one(source)  # raises what was wrong with it
    reasons = tuple(dict.fromkeys(reason for one in found for reason in one.reasons))
    if not all(one.templates for one in found):
        nothing = undecided(*reasons, max_fmr=max_fmr, fingerprint=coder.fingerprint)
        return replace(nothing, reasons_a=found[0].reasons, reasons_b=found[1].reasons)
    apart = distance(found[0].templates[0].code, found[1].templates[0].code)
    decision = decide(apart, coder.calibration, max_fmr=max_fmr)
    return replace(decision, fingerprint=coder.fingerprint)  # also where there is no calibration to name it
