"""An independent float64 NumPy implementation of a VGG and of J, by loops over kernels and positions, and of J's
curvature by frequency, with full transforms."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

RINGS = 16


def forward(net: object, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Activations (c, *spatial) of the named layers for x (c, *spatial): reflected borders, max or average pooling."""
    found, weights, a = {}, {k: v.double().numpy() for k, v in net.state_dict().items()}, net.architecture
    if a.order == "bgr":
        x = x[::-1]
    shape = (-1,) + (1,) * (x.ndim - 1)
    x = (x - np.float32(a.mean).astype(float).reshape(shape)) / np.float32(a.scale).astype(float).reshape(shape)
    for name, _ in list(net.named_children())[1:]:
        if name.startswith("conv"):
            mode = "reflect" if a.padding == "reflect" else "constant"
            padded = np.pad(x, [(0, 0)] + [(1, 1)] * (x.ndim - 1), mode=mode)
            kernel, out = weights[f"{name}.weight"], 0.0
            for place in itertools.product(range(3), repeat=x.ndim - 1):
                window = padded[(slice(None), *(slice(p, p + n) for p, n in zip(place, x.shape[1:], strict=True)))]
                out = out + np.tensordot(kernel[(..., *place)], window, 1)
            x = out + weights[f"{name}.bias"].reshape(shape)
        elif name.startswith("relu"):
            x = np.maximum(x, 0)
        else:
            blocks = x[(slice(None), *(slice(0, n // 2 * 2) for n in x.shape[1:]))]
            parts = [
                blocks[(slice(None), *(slice(p, None, 2) for p in place))]
                for place in itertools.product(range(2), repeat=x.ndim - 1)
            ]
            x = np.max(parts, 0) if a.pooling == "max" else np.mean(parts, 0)
        if name in layers:
            found[name] = x
    return found


def gram(a: np.ndarray) -> np.ndarray:
    c = len(a)
    return np.array([[(a[k] * a[j]).sum() for j in range(c)] for k in range(c)])


def content_cost(c: np.ndarray, g: np.ndarray) -> float:
    """The chapter's: 1/2 sum (a(C) - a(G))^2."""
    return 0.5 * ((c - g) ** 2).sum()


def style_cost(s: np.ndarray, g: np.ndarray) -> float:
    """The chapter's: 1/(4 n_C^2 M^2) sum (G(S) - G(G))^2, for S and G of one size; Gram over positions otherwise."""
    c, m = len(g), g[0].size
    return ((gram(s) * m / s[0].size - gram(g)) ** 2).sum() / (4 * c**2 * m**2)


def cost(
    net: object,
    content: np.ndarray,
    style: np.ndarray,
    x: np.ndarray,
    *,
    alpha: float,
    beta: float,
    content_layers: Mapping[str, float],
    style_layers: Mapping[str, float],
) -> float:
    layers = [*content_layers, *style_layers]
    c, s, g = (forward(net, one, layers) for one in (content, style, x))
    return alpha * sum(w * content_cost(c[l], g[l]) for l, w in content_layers.items()) + beta * sum(
        w * style_cost(s[l], g[l]) for l, w in style_layers.items()
    )


def rings(size: tuple[int, ...]) -> np.ndarray:
    """The ring of each frequency, all of them (`style.curvature`)."""
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(n) for n in size], indexing="ij")))
    octave = np.log2(np.maximum(frequency * max(size), 1))
    finest = np.log2(max(max(size) * np.sqrt(len(size)) / 2, 2))
    return np.round(octave / finest * (RINGS - 1)).astype(int)


def times(M: np.ndarray, x: np.ndarray) -> np.ndarray:
    """M (rings, c, c) times x (1, c, *spatial), wave by wave."""
    axes = tuple(range(1, x.ndim - 1))
    waves = np.fft.fftn(x[0], axes=axes)
    mixed = np.einsum("...ij,j...->i...", M[rings(x.shape[2:])], waves)
    return np.fft.ifftn(mixed, axes=axes).real[None]
