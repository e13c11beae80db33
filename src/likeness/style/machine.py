"""What the process takes of the machine's memory, and what it can still get."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60  # what version 1 of control groups calls no limit is a number as large as this


def resident() -> int:
    """The process's resident size now, bytes; its highest so far where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return peak_memory()


def peak_memory() -> int:
    """The process's highest resident size so far, bytes; 0 where the system does not tell.

    Linux keeps it by memory map. What `getrusage` says there begins with that of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available() -> int | None:
    """Bytes that the process can still get: the least of what the system has free or can free, what its control groups
    (containers) leave, and what its own limit on addresses (`ulimit -v`) leaves. None where nothing of this is told."""
    return min(
        (max(0, left) for left in [*_system(), *_groups(Path("/proc/self/cgroup")), *_own_limit()]), default=None
    )


def _system() -> Iterator[int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        try:  # macOS: what is free is not told, what there is, is
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (OSError, ValueError, AttributeError):
            pass


def _groups(listing: Path, root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What each control group above the process leaves, in both versions of their file system. Pages of files that are
    not in use count as left: they are dropped when memory is short."""
    try:
        lines = [line.split(":", 2) for line in listing.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        limit, usage = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        group = top / path.lstrip("/")
        for one in {group, *group.parents, top}:
            if one != top and top not in one.parents:
                continue
            try:
                most, used = ((one / name).read_text().strip() for name in (limit, usage))
                stat = dict(line.split() for line in (one / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if most != "max" and int(most) < _UNLIMITED:
                files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                yield int(most) - int(used) + files


def _own_limit() -> Iterator[int]:
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            yield most - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        pass
