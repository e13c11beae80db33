"""The pages of a report as HTML: static, readable on a telephone and on a desk, by light and by dark, without a script
and without the network. What is written here is text; pictures are files that it is told the names of."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from .histograms import Histogram

STYLE = """
:root { color-scheme: light dark; --ground: #f5f4f0; --card: #fff; --ink: #1c1d20; --soft: #62646b; --line: #e2e0d9;
  --accent: #d43a10; --bar: #8a8d96 }
@media (prefers-color-scheme: dark) { :root { --ground: #121316; --card: #1c1e22; --ink: #ededf0; --soft: #a2a5ad;
  --line: #2e3138; --accent: #ff7a54; --bar: #777b86 } }
* { box-sizing: border-box }
html { scroll-padding-top: 4rem; overflow-wrap: anywhere }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem }
h1 { font-size: clamp(1.5rem, 4vw, 2.2rem); line-height: 1.15; margin: .3rem 0 .6rem; letter-spacing: -.01em }
h2 { font-size: 1.25rem; margin: 0 0 .2rem } h3 { font-size: 1rem; margin: 0 0 .5rem }
p { color: var(--soft); margin: 0 0 1rem; max-width: 44rem }
a { color: inherit; text-underline-offset: .2em; text-decoration-color: var(--line) }
a:hover { text-decoration-color: currentColor }
a:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; border-radius: 6px }
img, svg { width: 100%; height: auto; display: block } img { border-radius: 6px }
dl { display: flex; flex-wrap: wrap; gap: .2rem 1.8rem; margin: 0 0 1.2rem }
dt { color: var(--soft); font-size: .8rem } dd { margin: 0; font-variant-numeric: tabular-nums; font-weight: 600 }
figure { margin: 0 } figcaption { color: var(--soft); font-size: .82rem; line-height: 1.35; margin-top: .4rem }
figcaption b { color: var(--ink); font-weight: 600 }
section { margin-top: 2.5rem } .chips + section { margin-top: 1rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .8rem }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; position: sticky; top: 0; padding: .6rem 0; z-index: 1;
  background: var(--ground) }
.chips a, .steps a, .steps span { background: var(--card); border: 1px solid var(--line); border-radius: 99px;
  padding: .25rem .8rem; font-size: .88rem; text-decoration: none }
.key { display: flex; align-items: baseline }
.chips i, .key i { display: inline-block; flex: none; width: .7rem; height: .7rem; border-radius: 3px;
  margin-right: .45rem }
.steps { display: flex; flex-wrap: wrap; gap: .4rem; margin-bottom: 1.2rem } .steps span { opacity: .45 }
.steps :first-child { margin-right: auto }
.depth { display: grid; grid-template-columns: minmax(0, 20rem) 1fr; gap: 1.5rem; align-items: start }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem }
th { overflow-wrap: normal; text-align: left; color: var(--soft); font-weight: 400; font-size: .8rem }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line) }
.units { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: clamp(.4rem, 1.5vw, 1rem);
  align-items: start }
.units a { text-decoration: none } .units .card { padding: clamp(.3rem, 1vw, .7rem) }
.units a .card:hover { border-color: var(--accent) }
.two { display: grid; grid-template-columns: minmax(0, 22rem) minmax(0, 1fr); gap: 1rem; align-items: start }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
.bars { max-width: 30rem } .bars rect { fill: var(--bar) }
.bars text { fill: var(--soft); font: 14px system-ui, sans-serif }
.bars line { stroke: var(--line) } .bars .mark { stroke: var(--accent); stroke-width: 2 }
.scale { height: .6rem; border-radius: 3px;
  background: linear-gradient(90deg, rgb(215, 20, 150), #80808040, rgb(0, 170, 110)) }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: .82rem; margin-bottom: 1rem }
@media (max-width: 760px) {
  .depth, .two { grid-template-columns: minmax(0, 1fr) }
  .units { grid-template-columns: repeat(3, minmax(0, 1fr)) }
  .units > figure { grid-column: 1 / -1; max-width: 11rem }
  table { font-size: .8rem } th, td { padding-right: .4rem }
}
"""


@dataclass(frozen=True)
class Card:
    """A picture that leads to a page (`link`, None: nowhere). `text`: HTML below it."""

    picture: str
    alt: str
    text: str
    link: str | None = None


@dataclass(frozen=True)
class LayerView:
    """What the index shows of a layer. `colour`: of its frame in the drawings. `field`: the drawing of what its units
    see. `cards`: its units."""

    name: str
    anchor: str
    colour: str
    facts: Sequence[tuple[str, str]]
    field: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Steps:
    """Where one can go from a page: back up, to the one before and to the one after (None: there is none)."""

    up: tuple[str, str]
    before: str | None
    after: str | None


def page(title: str, body: str, *, style: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
        f'<link rel="stylesheet" href="{style}"></head>\n<body><main>{body}</main></body></html>\n'
    )


def index(
    title: str,
    lede: str,
    facts: Sequence[tuple[str, str]],
    depth: str,
    layers: Sequence[LayerView],
    pairs: Sequence[Card],
) -> str:
    """The layer browser. depth: the drawing of the fields of all layers on one sample."""
    chips = [
        f'<a href="#{one.anchor}"><i style="background:{one.colour}"></i>{text(one.name)}</a>' for one in layers
    ] + (['<a href="#pairs">pairs</a>'] if pairs else [])
    body = f"<h1>{text(title)}</h1><p>{text(lede)}</p>{_facts(facts)}"
    if len(chips) > 1:
        body += f'<nav class="chips" aria-label="layers">{"".join(chips)}</nav>'
    body += (
        f'<section class="depth"><figure class="card">{_image(depth, "what one unit of each layer sees")}'
        f"<figcaption>What one unit in the middle of each layer sees of a sample: the deeper, the "
        f"more.</figcaption></figure>{_table(layers)}</section>"
    )
    for one in layers:
        field = Card(one.field, f"what a unit of {one.name} sees", "what one unit sees")
        body += (
            f'<section id="{one.anchor}"><h2>{text(one.name)}</h2>{_facts(one.facts)}'
            f'<div class="units">{"".join(map(_card, [field, *one.cards]))}</div></section>'
        )
    if pairs:
        body += (
            f'<section id="pairs"><h2>Why two samples match, or do not</h2><p>Pairs of one subject and of two: what '
            f'brings their codes together, and what drives them apart.</p><div class="hits">'
            f"{''.join(map(_card, pairs))}</div></section>"
        )
    return page(title, body, style="style.css")


def unit(
    title: str,
    steps: Steps,
    facts: Sequence[tuple[str, str]],
    ideal: Card | str | None,
    bars: str,
    hits: Sequence[Card],
) -> str:
    """The page of one unit. ideal: its maximiser, or words on why there is none. bars: its histogram."""
    looks = _card(ideal) if isinstance(ideal, Card) else f'<p class="card">{text(ideal)}</p>' if ideal else ""
    body = (
        f"{_steps(steps)}<h1>{text(title)}</h1>{_facts(facts)}"
        f'<div class="{"two" if looks else ""}">{looks}<figure class="card"><h3>How often it fires how much</h3>{bars}'
        f"<figcaption>Positions counted for each activation; the height is logarithmic. The line marks the mean, the "
        f"dashed line the weakest of the patches below.</figcaption></figure></div>"
        f"<section><h2>What excites it most</h2><p>On the left all that the unit sees, on the right where; grey "
        f'lies beyond the border.</p><div class="hits">{"".join(map(_card, hits))}</div></section>'
    )
    return page(title, body, style="../style.css")


def match(title: str, steps: Steps, lede: str, facts: Sequence[tuple[str, str]], cards: Sequence[Card]) -> str:
    """The page of one pair."""
    body = (
        f"{_steps(steps)}<h1>{text(title)}</h1><p>{text(lede)}</p>{_facts(facts)}"
        f'<div class="scale"></div><div class="ends"><span>drives apart</span><span>brings together</span></div>'
        f'<div class="sides">{"".join(map(_card, cards))}</div>'
    )
    return page(title, body, style="../style.css")


def bars(one: Histogram, mean: float, weakest: float | None, strongest: float | None) -> str:
    """A histogram as inline SVG, over the range that holds something."""
    filled = [i for i, count in enumerate(one.counts) if count]
    if not filled:
        return ""
    low = -one.reach + filled[0] * one.width
    high = max(-one.reach + (filled[-1] + 1) * one.width, strongest if strongest is not None else low)
    wide, tall = 460, 170

    def across(value: float) -> float:
        return (value - low) / (high - low) * wide

    most = math.log1p(max(one.counts))
    rows = []
    for i in range(filled[0], filled[-1] + 1):
        height = math.log1p(one.counts[i]) / most * tall
        x, step = across(-one.reach + i * one.width), one.width / (high - low) * wide
        rows.append(
            f'<rect x="{x:.1f}" y="{tall - height:.1f}" width="{max(step - 1, 0.5):.1f}" height="{height:.1f}"/>'
        )
    for value, dash in ((mean, ""), (weakest, ' stroke-dasharray="4 4"')):
        if value is not None:
            x = across(value)
            rows.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{tall}"{dash}/>')
    ends = f'<text x="0" y="{tall + 18}">{number(low)}</text>'
    ends += f'<text x="{wide}" y="{tall + 18}" text-anchor="end">{number(high)}</text>'
    if low < 0 < high and 50 < across(0) < wide - 50:
        ends += f'<text x="{across(0):.1f}" y="{tall + 18}" text-anchor="middle">0</text>'
    words = f"histogram of activations from {number(low)} to {number(high)}, mean {number(mean)}"
    return (
        f'<svg class="bars" viewBox="0 0 {wide} {tall + 24}" role="img" aria-label="{words}">'
        f'<line x1="0" x2="{wide}" y1="{tall}" y2="{tall}"/>{"".join(rows)}{ends}</svg>'
    )


def text(words: str) -> str:
    """Words of whatever origin as HTML; what is no valid Unicode, as file names may be, as a mark."""
    return html.escape(words.encode("utf-8", "replace").decode())


def number(value: float) -> str:
    return f"{value:.3g}"


def by(numbers: Iterable[object]) -> str:
    return " × ".join(map(str, numbers))


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>' for name, value in facts)}</dl>"


def _table(layers: Sequence[LayerView]) -> str:
    names = [name for name, _ in layers[0].facts]

    def cell(value: str) -> str:
        return f"<td>{text(value).replace(' × ', '×')}</td>"  # so that three axes fit the width of a telephone

    rows = "".join(
        f'<tr><td><a class="key" href="#{one.anchor}"><i style="background:{one.colour}"></i>{text(one.name)}</a></td>'
        f"{''.join(cell(value) for _, value in one.facts)}</tr>"
        for one in layers
    )
    head = "".join(f"<th>{text(name)}</th>" for name in ("layer", *names))
    return f'<div class="card"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _card(one: Card) -> str:
    figure = f'<figure class="card">{_image(one.picture, one.alt)}<figcaption>{one.text}</figcaption></figure>'
    return figure if one.link is None else f'<a href="{quote(one.link)}">{figure}</a>'


def _steps(steps: Steps) -> str:
    link, words = steps.up
    parts = [f'<a href="{quote(link, safe="/#.")}">{text(words)}</a>']
    for target, label, relation in ((steps.before, "← previous", "prev"), (steps.after, "next →", "next")):
        parts.append(
            f"<span>{label}</span>" if target is None else f'<a rel="{relation}" href="{quote(target)}">{label}</a>'
        )
    return f'<nav class="steps" aria-label="pages">{"".join(parts)}</nav>'


def _image(file: str, alt: str) -> str:
    return f'<img src="{quote(file)}" alt="{text(alt)}" loading="lazy">'
