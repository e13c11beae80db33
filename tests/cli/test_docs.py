"""docs/reference/cli.md names every verb, action and long option that there is."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from likeness.cli.main import VERBS, build_parser

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def parsers(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from parsers(sub, f"{words} {name}".strip())


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_every_option_is_documented(verb: str) -> None:
    for words, parser in parsers(build_parser([verb]), ""):
        if not words.startswith(verb):
            continue
        assert words in DOC, words
        for action in parser._actions:
            for flag in action.option_strings:
                assert not flag.startswith("--") or flag == "--help" or flag in DOC, f"{words} {flag}"


def test_no_other_verb_is_promised() -> None:
    headings = [line.split()[2] for line in DOC.splitlines() if line.startswith("## likeness ")]
    assert sorted(headings) == sorted(VERBS)


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_shown_exist(page: Path) -> None:
    """Every `likeness VERB ACTION` on a page is one that the parser knows."""
    actions = {verb: set(_actions(build_parser([verb]), verb)) for verb in VERBS}
    for verb, action in re.findall(r"^\s*(?:\$ )?likeness ([a-z]+) ([a-z-]*)", page.read_text(encoding="utf-8"), re.M):
        assert verb in VERBS, f"{page.name}: likeness {verb}"
        assert not actions[verb] or not action or action in actions[verb], f"{page.name}: likeness {verb} {action}"


def test_the_label_file_shown_is_one(tmp_path: Path) -> None:
    from likeness.faces.labels import read_labels

    (shown,) = (block for block in re.findall(r"```json\n(.*?)```", DOC, re.DOTALL) if "given_boxes" in block)
    (tmp_path / "labels.json").write_text(shown)
    (photo,) = read_labels(tmp_path)
    assert photo.path == tmp_path / "group.jpg" and photo.sure.all() and photo.landmarks.shape == (1, 5, 2)


def _actions(parser: argparse.ArgumentParser, verb: str) -> Iterator[str]:
    for words, _ in parsers(parser, ""):
        parts = words.split()
        if len(parts) == 2 and parts[0] == verb:
            yield parts[1]
