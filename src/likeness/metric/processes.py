"""Several processes that train one net (`torchrun`): each sees its part of every batch, and all take the same step.

Gradients of everything that learns are averaged, of the net and of what learns beside it alike. The net's running
statistics are averaged too; while it trains, batch normalisation knows a process's own part of the batch only.
(DistributedDataParallel would know nothing of the weights beside the net; for nets this small, one exchange after the
backward pass costs no more.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidOption


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`. With one process all of these do nothing."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """What `torchrun` says in RANK and WORLD_SIZE; one process where it says nothing."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def join(self) -> None:
        """Meet the others, where there are any and nobody has done so yet."""
        if self.world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group()

    def share(self, part: Any) -> Any:
        """This process's of `world` equal, contiguous parts of a tensor's first axis, through nested tuples.

        Contiguous, so that samples of one subject, which stand together, stay together. Raises InvalidOption where
        equal parts do not exist: means over unequal parts could not be averaged.
        """
        if isinstance(part, tuple):
            return tuple(self.share(item) for item in part)
        if not isinstance(part, Tensor) or self.world == 1:
            return part
        length, rest = divmod(len(part), self.world)
        if rest or not length:
            raise InvalidOption(f"a batch of {len(part)} samples cannot be shared evenly by {self.world} processes")
        return part[self.rank * length : (self.rank + 1) * length]

    def first(self, number: int, device: torch.device) -> int:
        """What the first process gives, in all of them."""
        if self.world == 1:
            return number
        told = torch.tensor([number], dtype=torch.int64, device=device)
        torch.distributed.broadcast(told, 0)
        return int(told)

    @torch.no_grad()
    def start_alike(self, *modules: nn.Module) -> None:
        """Give all processes the weights and statistics of the first."""
        if self.world > 1:
            for module in modules:
                for value in module.state_dict().values():
                    same = value.contiguous()
                    torch.distributed.broadcast(same, 0)
                    value.copy_(same)

    @torch.no_grad()
    def average(self, weights: nn.Module, net: nn.Module) -> None:
        """Average the gradients of all `weights` and the running statistics of `net` over the processes.

        A weight without a gradient here counts as zero: it may have one in another process.
        """
        if self.world == 1:
            return
        parameters = [p for p in weights.parameters() if p.requires_grad]
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        values = [p.grad for p in parameters if p.grad is not None]
        values += [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        together = torch.cat([value.reshape(-1).float() for value in values])
        torch.distributed.all_reduce(together)
        together /= self.world
        for value, mean in zip(values, together.split([value.numel() for value in values]), strict=True):
            value.copy_(mean.view(value.shape))
