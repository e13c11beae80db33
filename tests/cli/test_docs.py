"""docs/reference/cli.md names every verb, action and long option that there is."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from likeness.cli.main import VERBS, build_parser

DOC = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


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
