"""What a net computes inside: the activations of named layers, in one forward pass no deeper than the deepest one
asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import InvalidOption, UnknownName

_Keep = Callable[[nn.Module, int, Any], Any]


def activations(
    net: nn.Module, x: Tensor, layers: Sequence[str], tap: Callable[[str, Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Outputs of the layers called `layers`, in that order, for the samples x (b, c, *spatial).

    Names are those of `net.named_modules()` ("" is the net itself). A module that the net uses several times gives
    each use a name of its own: "relu" is the first, "relu#2" the second, and so on (`layer_shapes` lists them all).
    The pass stops after the last of them; what lies deeper is not computed. Gradients flow; mode, gradients and hooks
    of the net are left as they were, also when it raises. Modules that overwrite what they are given (`inplace=True`)
    are given a copy of what is kept. Several threads may look into one net.

    tap: called with the name and the activation when a layer is reached; what it returns takes the activation's place,
    for the layers after it and in the result.

    Raises UnknownName for a name that the net does not have, with the nearest one, and for a layer that the pass does
    not reach.
    """
    if isinstance(layers, str):
        raise InvalidOption(f"layers is the string {layers!r}; give a list of names: [{layers!r}]")
    wanted = _wanted(net, layers)
    copy = torch.is_inference_mode_enabled()  # no telling there whether something was overwritten
    missing = set(layers)
    found: dict[str, tuple[Tensor, int]] = {}

    def keep(module: nn.Module, use: int, out: Any) -> Any:
        for name in wanted[module].get(use, ()):
            out = _tensor(name, out)
            if tap is not None:
                out = tap(name, out)
            kept = out.clone() if copy else out
            found[name] = (kept, 0 if copy else kept._version)
            missing.discard(name)
        if not missing:
            raise _Enough
        return out

    thread = threading.get_ident()

    def spare(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if threading.get_ident() != thread:  # it is another's pass
            return None
        return tuple(
            one.clone() if any(_same_memory(one, kept) for kept, _ in found.values()) else one for one in given
        )

    if missing:
        overwriting = [module for module in net.modules() if getattr(module, "inplace", False)]
        with _held(module.register_forward_pre_hook(spare) for module in overwriting):
            _watch(net, x, list(wanted), keep)
    if missing:
        name = sorted(missing)[0]
        raise UnknownName(f"the net has a layer for {name!r}, but a forward pass does not reach it (see layer_shapes)")
    for name, (kept, version) in found.items():
        if not copy and kept._version != version:
            raise InvalidOption(
                f"the net overwrites the activations of layer {name!r} in place; ask for the layer after it"
            )
    return {name: found[name][0] for name in layers}


@contextmanager
def listening(net: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict in which every forward pass of `net`, while the `with` lasts, leaves the outputs of `layers`, named as in
    `activations`: for what needs a whole pass and a look inside at once. Gradients of what follows reach them; whatever
    follows is given copies, so that nothing overwrites them. No hook stays behind.

    Raises UnknownName for a name that the net does not have, and InvalidOption, in the pass, for a layer whose output
    is no tensor.
    """
    wanted = _wanted(net, layers)
    found: dict[str, Tensor] = {}

    def keep(module: nn.Module, use: int, out: Any) -> Tensor | None:
        names = wanted.get(module, {}).get(use, ())  # a copy of the net made meanwhile has the hook, but is not asked
        found.update((name, _tensor(name, out)) for name in names)
        return out.clone() if names else None

    with _hooks(net, list(wanted), keep):
        yield found


def layer_shapes(net: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Every name that `activations` knows for samples like x, in the order of computation, with the shape of its
    output.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    names = {module: name for name, module in net.named_modules()}

    def keep(module: nn.Module, use: int, out: Any) -> None:
        if isinstance(out, Tensor):
            shapes[names[module] + (f"#{use}" if use > 1 else "")] = tuple(out.shape)

    with torch.no_grad():
        _watch(net, x, list(names), keep)
    return shapes


class _Enough(BaseException):
    """Ends the forward pass; not an Exception, so that no `except Exception` inside a net swallows it."""


def _watch(net: nn.Module, x: Tensor, modules: Sequence[nn.Module], keep: _Keep) -> None:
    with _hooks(net, modules, keep), suppress(_Enough):
        net(x)


@contextmanager
def _hooks(net: nn.Module, modules: Sequence[nn.Module], keep: _Keep) -> Iterator[None]:
    """`keep(module, use, output)` after each use of `modules`, counted from 1 in each pass of the net; what it returns,
    if anything, takes the output's place."""
    uses: dict[nn.Module, int] = {}
    thread = threading.get_ident()

    def begin(*_: Any) -> None:
        if threading.get_ident() == thread:
            uses.clear()

    def hook(module: nn.Module, _: Any, out: Any) -> Any:
        if threading.get_ident() != thread:  # another's pass through the same net
            return None
        uses[module] = uses.get(module, 0) + 1
        return keep(module, uses[module], out)

    before = net.register_forward_pre_hook(begin)
    with _held([before, *(module.register_forward_hook(hook) for module in modules)]):
        yield


@contextmanager
def _held(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks that are removed in the end."""
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _same_memory(a: Any, b: Tensor) -> bool:
    return isinstance(a, Tensor) and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _wanted(net: nn.Module, layers: Sequence[str]) -> dict[nn.Module, dict[int, list[str]]]:
    """module -> its use -> the names under which that was asked for."""
    wanted: dict[nn.Module, dict[int, list[str]]] = {}
    modules = dict(net.named_modules(remove_duplicate=False))
    for name in layers:
        base, use = _split(name, modules)
        wanted.setdefault(modules[base], {}).setdefault(use, []).append(name)
    return wanted


def _tensor(name: str, out: Any) -> Tensor:
    if not isinstance(out, Tensor):
        raise InvalidOption(f"layer {name!r} gives a {type(out).__name__}, not a tensor; ask for a layer inside it")
    return out


def _split(name: str, modules: dict[str, nn.Module]) -> tuple[str, int]:
    """ "relu#2" -> ("relu", 2), and "relu" -> ("relu", 1)."""
    if name in modules:
        return name, 1
    base, mark, use = name.rpartition("#")
    if mark and base in modules and use.isdecimal() and int(use) >= 1:
        return base, int(use)
    near = get_close_matches(base if mark else name, [m for m in modules if m], 1, 0)
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownName(f"the net has no layer called {name!r}{suggestion}")
