"""The pages of a report's units: the patches that excite a unit, where they lie, what it looks for, how it fires."""

from __future__ import annotations

import re

from ..errors import InvalidOption, SilentUnit
from ..progress import Progress
from . import pages
from .attribute import unit as activation_of
from .exhibits import SIDE, TILE, Look
from .maximize import maximize
from .pages import Card, by, number, text
from .panels import Panel, framed, patch_of
from .patches import Hit, LayerPatches

STEPS = 128  # of the maximiser: pictures change little after


def write_units(look: Look, side: int, *, maximised: bool, on_progress: Progress | None) -> dict[str, list[Card]]:
    """Write the page of every shown unit; returns for each layer their cards for the index, with side x side patches.
    maximised: whether each page shows what would excite its unit most, which takes a second or more."""
    order = [(layer, unit) for layer, units in look.shown.items() for unit in units]
    # Numbered, so that no layer's name can lead out of the folder, or two of them to one page.
    numbers = {layer: i for i, layer in enumerate(look.shown, 1)}
    stems = [f"{numbers[layer]}-{re.sub('[^A-Za-z0-9_.]+', '-', layer)}-{unit}" for layer, unit in order]
    cards: dict[str, list[Card]] = {layer: [] for layer in look.shown}
    for i, (layer, unit) in enumerate(order):
        before = f"{stems[i - 1]}.html" if i else None
        after = f"{stems[i + 1]}.html" if i + 1 < len(order) else None
        steps = pages.Steps((f"../index.html#layer-{numbers[layer]}", "all layers"), before, after)
        one = look.found.layers[layer]
        page = _page(look, layer, unit, one, stems[i], steps, maximised)
        look.write(f"units/{stems[i]}.html", page)
        place = one.units.index(unit)
        hits = one.hits[place]
        shown = [patch_of(look.exhibits.shown(hit.sample), hit, one.field) for hit in hits]
        if shown:
            picture = look.draw(stems[i], shown, columns=side, side=TILE)
            top = f"up to {number(hits[0].activation)}" if one.fires(place) else "never fires"
            words = f"unit <b>{unit}</b> · {top}"
            cards[layer].append(Card(picture, f"patches of unit {unit}", words, f"units/{stems[i]}.html"))
        if on_progress:
            on_progress(i + 1, len(order), {})
    return cards


def _page(look: Look, layer: str, unit: int, one: LayerPatches, stem: str, steps: pages.Steps, maximised: bool) -> str:
    i = one.units.index(unit)
    hits, histogram = one.hits[i], one.histograms[i]
    weakest, strongest = (hits[-1].activation, hits[0].activation) if hits else (None, None)
    facts = [
        ("fires (above 0) at", f"{histogram.firing:.1%} of positions"),
        ("mean", number(one.mean[i])),
        ("deviation", number(one.deviation[i])),
        ("strongest", "–" if strongest is None else number(strongest)),
        ("sees", by(one.field.size)),
    ]
    ideal = _ideal(look, layer, unit, one, stem, strongest) if maximised else None
    bars = pages.bars(histogram, one.mean[i], weakest, strongest)
    cards = [_hit(look, hit, one, f"{stem}-{rank}", unit) for rank, hit in enumerate(hits, 1)]
    return pages.unit(f"{layer} · unit {unit}", steps, facts, ideal, bars, cards)


def _hit(look: Look, hit: Hit, one: LayerPatches, stem: str, unit: int) -> Card:
    sample, name = look.exhibits.shown(hit.sample), look.exhibits.title(hit.sample)
    picture = look.draw(stem, [patch_of(sample, hit, one.field), framed(sample, hit.window)], columns=2)
    where = by(f"{first}–{last - 1}" for first, last in hit.window)
    words = f"<b>{number(hit.activation)}</b> · {text(name)} · at {where}"
    return Card(f"../{picture}", f"what excites unit {unit}, and where it lies in {name}", words)


def _ideal(look: Look, layer: str, unit: int, one: LayerPatches, stem: str, strongest: float | None) -> Card | str:
    """The maximiser on a sample as large as the unit's field; or why there is none."""
    exhibits = look.exhibits
    channels, *spatial = exhibits.sample(0).shape
    extent = [min(size, n) for size, n in zip(one.field.size, spatial, strict=True)]
    try:
        made = maximize(
            look.net,
            activation_of(layer, unit, "centre"),
            (channels, *extent),
            steps=STEPS,
            low=exhibits.low,
            high=exhibits.high,
            jitter=min(extent) // 16,
        )
    except SilentUnit as error:
        return str(error)
    except (InvalidOption, RuntimeError) as error:  # torch's, where a net takes samples of one size only
        return f"No sample of {by(extent)} could be made for it: {error}"
    picture = look.draw(f"{stem}-ideal", [Panel(exhibits.scaled(made.sample[0]))], side=SIDE)
    more = "" if strongest is None else f"; the strongest patch reaches {number(strongest)}"
    words = f"<b>What it looks for.</b> Made by going uphill from noise: {number(made.activation)}{more}."
    return Card(f"../{picture}", f"what would excite unit {unit} most", words)
