"""Arrays in, arrays out: runs an ONNX net with ONNX Runtime, which is all that recognising needs (no torch).

The session is set up to be a good guest: as many threads as the process may use (a container's CPU quota, not the
machine's core count), no thread that spins while it waits, and memory of unusually large inputs given back.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidOption, MissingDependency, UnreadableFile, WeightsError

LARGE = (
    12 << 20
)  # bytes of input: after such a run the arena is emptied, or one large photograph would hold it for ever
MOST_THREADS = 4  # our nets are small: above four threads, handing work around costs more than it saves


def cpu_quota(root: Path = Path("/")) -> int:
    """How many CPUs this process may keep busy: the least of affinity mask and cgroup quota (v2, v1), at least 1.

    A quota of 1.5 CPUs counts as 2: one thread would leave a third of it unused. `root` is for tests.
    """
    try:
        count = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, Windows
        count = float(os.cpu_count() or 1)
    return max(1, math.ceil(min([count, *_cgroup_quotas(root)])))


def _cgroup_quotas(root: Path) -> list[float]:
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = (line.split(":", 2) + ["", ""])[:3]
        if controllers == "":
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"]
        else:
            continue
        parts = [part for part in group.split("/") if part and part != ".."]
        for mount in mounts:
            # The limit of any ancestor holds as well; inside a container only the mount's own root may be visible.
            for depth in range(len(parts) + 1):
                folder = mount.joinpath(*parts[:depth])
                quota = _quota(_read(folder / "cpu.max").split())
                if quota is None:
                    quota = _quota([_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")])
                if quota is not None:
                    quotas.append(quota)
    return quotas


def _quota(words: list[str]) -> float | None:
    """CPUs that [quota, period] in microseconds allow; None where there is no limit ("max", -1) or nothing to read."""
    try:
        quota, period = float(words[0]), float(words[1])
    except (IndexError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# By what names an ONNX file of ours may say how many bytes it needs per position, and how small samples may be.
PER_POSITION, SMALLEST = "likeness.bytes_per_position", "likeness.smallest"


class Engine:
    """An ONNX net, ready to run on the CPU. Several threads may call `run` at once.

    `source`: the file, or its bytes. `threads`: how many one `run` uses, default min(cpu_quota(), 4).
    `inputs`: how many it must have. Raises UnreadableFile (missing), WeightsError (not an ONNX net, damaged, another
    number of inputs).
    """

    def __init__(self, source: Path | bytes, *, threads: int | None = None, inputs: int = 1) -> None:
        if threads is not None and threads < 1:
            raise InvalidOption(f"threads must be at least 1, not {threads}")
        try:
            import onnxruntime
        except ImportError as error:  # pragma: no cover - it is a core dependency
            raise MissingDependency("recognition needs ONNX Runtime: pip install onnxruntime") from error
        label = "these bytes" if isinstance(source, bytes) else str(source)
        if not isinstance(source, bytes):
            try:
                # Bytes, not the path: a net that keeps tensors in a second file could name any file of this machine.
                source = Path(source).read_bytes()
            except OSError as error:
                raise UnreadableFile(f"cannot read weights {label}: {error.strerror or error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or min(cpu_quota(), MOST_THREADS)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 4  # a failure is raised, and told once
        try:
            self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise WeightsError(f"{label}: not a working ONNX net ({reason}); fetch or export it again") from error
        nodes = self._session.get_inputs()
        if len(nodes) != inputs:
            names = ", ".join(node.name for node in nodes) or "none"
            wanted = f"{inputs} inputs" if inputs > 1 else "one input"
            raise WeightsError(f"{label}: a net with {wanted} is needed, this one has {len(nodes)} ({names})")
        self._inputs = {node.name: tuple(n if isinstance(n, int) else None for n in node.shape) for node in nodes}
        # The arena stays on: without it a batch of 64 crops takes twice the memory and a tenth more time.
        self._shrink: Any = onnxruntime.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._label = label
        self.input_shape: tuple[int | None, ...] = next(iter(self._inputs.values()))
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.output_names: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())
        self.threads: int = options.intra_op_num_threads

    def run(self, *given: np.ndarray) -> tuple[np.ndarray, ...]:
        """All outputs, in the order of `output_names`, for an array per input (made float32). In `input_shape`, that of
        the first, None is any size.

        Raises InvalidOption where an array does not fit its input, WeightsError where the net itself fails.
        """
        feeds = {}
        for x, (name, shape) in zip(given, self._inputs.items(), strict=True):
            x = feeds[name] = np.ascontiguousarray(x, dtype=np.float32)
            fits = len(x.shape) == len(shape) and all(
                want is None or have == want for have, want in zip(x.shape, shape, strict=True)
            )
            if not fits:
                wanted = " x ".join("any" if n is None else str(n) for n in shape)
                raise InvalidOption(f"{self._label}: the net takes {wanted}, not {' x '.join(map(str, x.shape))}")
        large = max(x.nbytes for x in feeds.values()) > LARGE
        try:
            return tuple(self._session.run(None, feeds, self._shrink if large else None))
        except Exception as error:
            shapes = ", ".join(str(x.shape) for x in feeds.values())
            raise WeightsError(f"{self._label}: the net failed on {shapes}: {str(error)[:200]}") from error
