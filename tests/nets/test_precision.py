import time

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
