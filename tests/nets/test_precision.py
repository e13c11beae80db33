import time

import pytest
import torch

from likeness.nets import precision


def test_the_probe_is_short_and_leaves_no_trace() -> None:
    state = torch.random.get_rng_state()
    start = time.monotonic()
    first = precision.bfloat16_is_faster()
    assert time.monotonic() - start < 30  # under a second on an idle machine; a whole net in emulation takes minutes
    assert first is precision.bfloat16_is_faster()
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_default_dtype() is torch.float32


def test_emulation_is_seen_on_a_small_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides that are timed, and what each must gain."""
    for gain, sides in ((0.1, [16]), (0.3, [16, 32]), (1.0, [16, 32, 128]), (2.0, [16, 32, 128])):
        asked = []

        def timed(device: str, side: int, least: float, _: int, gain: float = gain, asked: list[int] = asked) -> bool:
            asked.append(side)
            return gain > least

        monkeypatch.setattr(precision, "_probe", timed)
        assert precision.bfloat16_is_faster.__wrapped__() is (gain > precision.GAIN)
        assert asked == sides
