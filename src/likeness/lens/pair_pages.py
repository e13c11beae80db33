"""The pages of a report's pairs: two samples of one subject or of two, and what brings their codes together or
apart."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InvalidOption
from . import pages
from .comparing import compare_samples
from .exhibits import TILE, Look
from .pages import Card, text
from .panels import Panel

SUBJECTS = 32  # that pairs are chosen among, and two samples of each
EACH = 3  # pairs of one subject, and pairs of two
FINE = 10  # positions per axis that a map needs to show parts


def write_pairs(look: Look) -> list[Card]:
    """Write a page for a few pairs where subjects are known and the net gives codes (b, d): of one subject and of two
    those that are most alike, least alike, and in the middle. Returns their cards for the index."""
    samples = _samples_of_subjects(look)
    if len(samples) < 2:
        return []
    with torch.no_grad():
        codes = torch.cat([look.net(look.exhibits.sample(i)[None]) for i in samples])
    if codes.ndim != 2:
        return []
    scores = (F.normalize(codes) @ F.normalize(codes).T).tolist()
    pairs = [(scores[a][b], samples[a], samples[b]) for a, b in itertools.combinations(range(len(samples)), 2)]
    subject = look.exhibits.subject
    one = _telling([pair for pair in pairs if subject(pair[1]) == subject(pair[2])])
    two = _telling([pair for pair in pairs if subject(pair[1]) != subject(pair[2])])
    chosen = [("same subject", pair) for pair in one] + [("two subjects", pair) for pair in two]
    layer = _fine_layer(look)
    cards = []
    for i, (kind, pair) in enumerate(chosen):
        before = f"{i}.html" if i else None
        after = f"{i + 2}.html" if i + 1 < len(chosen) else None
        steps = pages.Steps(("../index.html#pairs", "all pairs"), before, after)
        cards.append(_pair(look, i + 1, kind, pair, layer, steps))
    return cards


def _samples_of_subjects(look: Look) -> list[int]:
    """Numbers of up to two samples of each of up to SUBJECTS subjects, spread evenly over the data."""
    of: dict[str, list[int]] = {}
    for i in range(look.found.samples):
        if (subject := look.exhibits.subject(i)) is not None:
            of.setdefault(subject, []).append(i)
    several = [subject for subject, own in of.items() if len(own) > 1]
    subjects = several if len(several) > 1 else list(of)
    spread = np.linspace(0, len(subjects) - 1, min(SUBJECTS, len(subjects))).round().astype(int)
    return [i for k in spread for i in of[subjects[k]][:2]]


def _telling(pairs: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """The pair with the highest score, the one in the middle, and the one with the lowest."""
    ordered = sorted(pairs, reverse=True)
    places = sorted({round(k * (len(ordered) - 1) / (EACH - 1)) for k in range(EACH)}) if ordered else []
    return [ordered[k] for k in places]


def _fine_layer(look: Look) -> str | None:
    """The deepest of the shown layers whose maps are fine enough to show parts; None where none is."""
    fine = [layer for layer, shape in look.shapes.items() if max(shape[2:]) >= FINE]
    return fine[-1] if fine else None


def _pair(
    look: Look, place: int, kind: str, pair: tuple[float, int, int], layer: str | None, steps: pages.Steps
) -> Card:
    score, *numbers = pair
    samples = [look.exhibits.sample(i) for i in numbers]
    titles = [look.exhibits.title(i) for i in numbers]
    plain = [Panel(look.exhibits.scaled(x)) for x in samples]
    distance = f"{max(0.0, 2 - 2 * score):.3f}"
    facts = [("distance", distance), ("score", f"{score:.3f}")]
    laid: list[Panel] = []
    words = [f"<b>{text(title)}</b>" for title in titles]
    try:
        found = compare_samples(look.net, samples[0][None], samples[1][None], layer=layer)
    except (InvalidOption, RuntimeError) as error:  # torch's, where no gradient can flow
        lede = f"There are no maps of what counts: {error}"
    else:
        lede = (
            "Each map and what a blank sample would leave add up to the score, which is 1 where the net sees no "
            "difference."
        )
        shares = [share for share in (found.a, found.b) if share is not None]
        heats = [share.heat(x.shape[1:]) for share, x in zip(shares, samples, strict=True)]
        peak = max(float(np.abs(heat).max()) for heat in heats) or 1.0
        laid = [Panel(one.sample, heat=heat / peak) for one, heat in zip(plain, heats, strict=True)]
        for i, share in enumerate(shares):
            words[i] += f" adds {round(float(share.map.sum()), 3) + 0.0:+.3f} to the score"
            words[i] += "" if share.rest is None else f"; a blank sample in its place would leave {share.rest:.3f}"
        facts.append(("maps of", f"{found.layer}"))
        if explained := [f"{share.explained:.1%}" for share in shares if share.explained is not None]:
            facts.append(("accounted for", " and ".join(explained)))
    cards = [
        Card(f"../{look.draw(f'pair-{place}-{letter}', [*plain[i : i + 1], *laid[i : i + 1]], columns=2)}", title, said)
        for i, (letter, title, said) in enumerate(zip("ab", titles, words, strict=True))
    ]
    look.write(f"pairs/{place}.html", pages.match(f"Pair {place}: {kind}", steps, lede, facts, cards))
    together = look.draw(f"pair-{place}", [*plain, *laid], columns=2, side=TILE)
    return Card(together, " and ".join(titles), f"<b>{kind}</b> · distance {distance}", f"pairs/{place}.html")
