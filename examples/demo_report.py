"""The demo's page: one HTML file with its pictures inside, for phones too, light or dark as the system is."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

SCALE = 2.0  # the bar's full width: distances of different people rarely exceed it
SIDE = 320
RULER = '<span class="scale" aria-hidden="true"><span>0</span><span>1</span><span>2</span></span>'


@dataclass(frozen=True)
class Card:
    """One picture and what was decided about it. `boxes`: faces (x, y, w, h) in the upright picture."""

    title: str
    path: Path
    boxes: list[list[float]]
    verdict: str
    note: str
    distance: float | None
    threshold: float | None
    expected: bool
    ms: float


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    cards: list[Card]


@dataclass(frozen=True)
class Layer:
    """One layer of a net: `grids`, of each unit shown, the patches that excite it most."""

    title: str
    text: str
    grids: list[Image.Image]


STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f2; --card: #fff; --ink: #1d1d1f; --soft: #66676b; --line: #e3e1dc;
  --yes: #1a7f4b; --no: #5b6472; --open: #9a6700; --wrong: #c62828; --accent: #2f5bd7; --track: #eceae5 }
@media (prefers-color-scheme: dark) { :root { --ground: #131417; --card: #1d1f24; --ink: #ececee; --soft: #a0a3aa;
  --line: #2e3138; --yes: #4cc38a; --no: #aab2c0; --open: #e2b04a; --wrong: #ff7b72; --accent: #8caaff;
  --track: #2b2e35 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 2.5rem) 3rem }
h1 { font-size: clamp(1.7rem, 5vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .5rem }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 2.75rem 0 .15rem; display: flex; flex-wrap: wrap;
  align-items: baseline; gap: .2rem .75rem }
h2 small { font-size: .85rem; font-weight: 500; color: var(--soft) }
p { margin: 0 0 1rem; color: var(--soft); max-width: 46rem }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.2rem, 1fr)); gap: .75rem;
  margin: 1.75rem 0 0 }
.facts dd { font-size: .8rem; line-height: 1.65 }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .7rem .9rem }
.facts dt { color: var(--soft); font-size: .78rem } .facts dd { margin: 0; font-weight: 600; white-space: nowrap;
  font-variant-numeric: tabular-nums }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 44vw), 1fr)); gap: .9rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden; display: flex;
  flex-direction: column; margin: 0 }
.card.wrong { border-color: var(--wrong); box-shadow: 0 0 0 1px var(--wrong) }
.photo { position: relative; background: var(--track); aspect-ratio: 1 }
.photo svg { position: absolute; inset: 0; width: 100%; height: 100% }
.photo rect { fill: none; stroke: #fff; stroke-width: 2; vector-effect: non-scaling-stroke;
  filter: drop-shadow(0 0 1px #000) }
figcaption { padding: .7rem .8rem .8rem; display: flex; flex-direction: column; gap: .3rem; flex: 1; font-size: .86rem }
.title { color: var(--soft); line-height: 1.3 }
.verdict { font-weight: 650; font-size: .98rem; line-height: 1.25 }
.match, .enrolled { color: var(--yes) } .no { color: var(--no) } .cannot { color: var(--open) }
.wrong .verdict { color: var(--wrong) }
.bar { position: relative; height: 6px; border-radius: 3px; background: var(--track); margin: auto 0 .15rem }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; background: currentColor }
.bar b { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--ink); border-radius: 1px }
.scale { display: flex; justify-content: space-between; color: var(--soft); font-size: .68rem; line-height: 1.1;
  font-variant-numeric: tabular-nums }
.figures { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .5rem; color: var(--soft);
  font-size: .74rem; font-variant-numeric: tabular-nums }
.note { margin-bottom: .25rem } .title + .verdict { margin-bottom: .25rem }
.figures span { white-space: nowrap }
.note { color: var(--soft); font-size: .8rem; line-height: 1.3 }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem } h3 small { font-weight: 400; color: var(--soft); margin-left: .5rem }
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(6.6rem, 29vw), 1fr)); gap: .8rem }
.grids img { width: 100%; height: auto; display: block; border-radius: 4px }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .82rem; color: var(--soft) }
"""


def write_report(path: Path, sections: list[Section], facts: dict[str, Any], layers: Iterable[Layer] = ()) -> Path:
    cards = [card for section in sections for card in section.cards]
    right = sum(card.expected for card in cards)
    facts = {"as expected": f"{right} of {len(cards)}", **facts}
    items = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in facts.items())
    body = "".join([*map(_section, sections), _layers(list(layers))])
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>likeness: the demo</title><style>{STYLE}</style></head><body><main>
<h1>Two portraits, recognised</h1>
<p>Real photographs, degraded in eight ways each, decided by the detector and the encoder that ship with likeness, on
this machine, without a network. The bar shows the distance d of the two codes, from 0 (alike) to 2 (as different as
strangers are on average); the mark on it is the threshold that the error rate asked for sets. Left of the mark is a
match.</p>
<dl class="facts">{items}</dl>
{body}
<footer>Portraits: Eileen Collins (NASA, in scikit-image) and Grace Hopper (US Navy, in matplotlib), public domain; the
cameraman (Lav Varshney, in scikit-image), CC0. The layers look at these and other photographs inside scikit-image,
in the public domain, CC0 or without known restrictions. A red frame marks a decision other than the one
expected.</footer>
</main></body></html>
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _section(section: Section) -> str:
    right = sum(card.expected for card in section.cards)
    count = f"<small>{right} of {len(section.cards)} as expected</small>"
    head = f"<h2>{html.escape(section.title)} {count}</h2><p>{html.escape(section.text)}</p>"
    return f'{head}<div class="cards">{"".join(map(_card, section.cards))}</div>'


def _layers(layers: list[Layer]) -> str:
    if not layers:
        return ""
    rows = "".join(
        f"<h3>{html.escape(layer.title)} <small>{html.escape(layer.text)}</small></h3>"
        f'<div class="grids">{"".join(map(_grid, layer.grids))}</div>'
        for layer in layers
    )
    return (
        "<h2>What a net sees</h2><p>Five layers of the small classifier that ships (alexnet-slim). Of each layer the "
        "nine units that stand out most, of each unit the nine patches of a dozen photographs that excite it most. The "
        "further in, the more of a picture a unit sees, and the less simple is what it answers to. Made by "
        f"<code>likeness lens patches</code>, whose pages are layers/index.html in this folder.</p>{rows}"
    )


def _grid(grid: Image.Image) -> str:
    buffer = io.BytesIO()
    grid.save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _card(card: Card) -> str:
    kind = card.verdict.split(":")[0].split()[0]
    apart = "" if card.distance is None else f"d {card.distance:.2f}"
    if card.threshold is not None and card.distance is not None:
        apart += f", threshold {card.threshold:.2f}"
    figures = [f"<span>{text}</span>" for text in (apart, f"{card.ms:.0f} ms") if text]
    bar = ""
    if card.distance is not None and card.threshold is not None:
        bar = (
            f'<div class="bar {kind}"><i style="width:{_percent(card.distance)}%"></i>'
            f'<b style="left:{_percent(card.threshold)}%"></b></div>{RULER}'
        )
    note = f'<span class="note">{html.escape(card.note)}</span>' if card.note else ""
    return (
        f'<figure class="card{"" if card.expected else " wrong"}">'
        f'<div class="photo">{_photo(card.path, card.boxes)}</div><figcaption>'
        f'<span class="title">{html.escape(card.title)}</span>'
        f'<span class="verdict {kind}">{html.escape(card.verdict)}</span>{note}{bar}'
        f'<span class="figures">{"".join(figures)}</span></figcaption></figure>'
    )


def _percent(distance: float) -> float:
    return round(100 * min(distance / SCALE, 1.0), 1)


def _photo(path: Path, boxes: Iterable[list[float]]) -> str:
    """The picture as an inline SVG of its own pixel size, so that boxes need no arithmetic."""
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    width, height = picture.size
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    frames = "".join(f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="3"/>' for x, y, w, h in boxes)
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="xMidYMid slice" role="img">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}"/>{frames}</svg>'
    )
