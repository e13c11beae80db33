"""Tables, CSV, JSON, progress, and defaults that are written in one place."""

import argparse
import inspect
from typing import Any

import pytest

from likeness.cli import common


def scale(source: str, *, max_rate: float = 1e-3, top: int = 5, name: str = "face") -> None:
    """A function with options."""


def test_options_take_default_and_type_from_the_signature() -> None:
    parser = argparse.ArgumentParser()
    common.option(parser, scale, "--max-rate", "a rate")
    common.option(parser, scale, "--encoder", "a name", argument="name")
    common.option(parser, scale, "--top", "a number")
    options = parser.parse_args(["--top", "7"])
    assert (options.max_rate, options.encoder, options.top) == (1e-3, "face", 7)
    assert "(default: 0.001)" in parser.format_help()
    assert common.default_of(scale, "max_rate") == inspect.signature(scale).parameters["max_rate"].default


def test_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table(("name", "d"), [("Ada", 0.5), ("Grace Hopper", None), ("Žofie", 12.0)])
    assert capsys.readouterr().out.splitlines() == [
        "name                d",
        "Ada            0.5000",
        "Grace Hopper",
        "Žofie         12.0000",
    ]
    common.print_table(("name",), [])
    assert capsys.readouterr().out == "name\n"


def test_csv_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_csv(("a", "b"), [('x, "y"', None)])
    assert capsys.readouterr().out == 'a,b\n"x, ""y""",\n'


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_json({"name": "Žofie"})
    assert capsys.readouterr().out == '{\n  "name": "\\u017dofie"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        common.print_json(float("nan"))


def test_short_work_draws_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress_bar("work") as on_progress:
        for i in range(10):
            on_progress(i + 1, 10, {"loss": 0.123456789})
        on_progress(1, 3, {})
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_long_work_draws_a_bar_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import tqdm

    made: list[dict[str, Any]] = []
    real = tqdm.tqdm

    def at_once(**options: Any) -> Any:
        made.append(options)
        return real(**{**options, "delay": 0, "mininterval": 0, "ncols": 100, "dynamic_ncols": False})

    monkeypatch.setattr(tqdm, "tqdm", at_once)
    monkeypatch.setattr(common.sys.stderr, "isatty", lambda: True, raising=False)
    with common.progress_bar("work") as on_progress:
        on_progress(1, 4, {"loss": 0.5})
        on_progress(4, 4, {"loss": 0.25})
        on_progress(1, 2, {})
    captured = capsys.readouterr()
    assert made[0]["delay"] == 2 and captured.out == ""
    assert "work" in captured.err and "loss=0.25" in captured.err


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: clock[0])
    with common.progress_bar("work") as on_progress:
        for done in range(1, 25):
            clock[0] += 1
            on_progress(done, 25, {"loss": 0.123456})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["work: 10 of 25, loss 0.1235", "work: 20 of 25, loss 0.1235"]


def test_fields_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_fields(
        {"code_length": 128, "shipped": True, "url": None, "of": {"input_order": "rgb", "mean": 127.5}, "mirrors": []}
    )
    assert capsys.readouterr().out.splitlines() == [
        "code length  128",
        "shipped      yes",
        "of           input order rgb, mean 127.5",
    ]
    assert common.size_of(3_969_352) == "4.0 MB (3,969,352 bytes)"
    assert common.size_of(None) is None


def test_complaints_name_the_file_once(capsys: pytest.CaptureFixture[str]) -> None:
    common.complain("a.jpg", "a.jpg: no such file")
    common.complain("a.jpg", "no face")
    assert capsys.readouterr().err.splitlines() == [
        "likeness: error: a.jpg: no such file",
        "likeness: error: a.jpg: no face",
    ]
