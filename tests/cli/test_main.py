"""Exit codes, one-line errors, and nothing imported that is not needed."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from likeness.cli import main as main_module
from likeness.cli.main import VERBS, build_parser
from likeness.errors import MissingDependency, UnreadableFile

Cli = Callable[..., Any]


def test_help_names_every_verb(cli: Cli) -> None:
    result = cli("--help")
    assert result.status == 0
    assert all(verb in result.out for verb in VERBS)
    assert cli("--version").out.startswith("likeness ")


@pytest.mark.parametrize("verb", [v for v in VERBS if v != "train"])
def test_every_verb_has_help(cli: Cli, verb: str) -> None:
    result = cli(verb, "--help")
    assert result.status == 0 and verb in result.out


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["likeness", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("likeness", run_name="__main__")
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("likeness ")


def test_help_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "likeness", "--help"], capture_output=True, text=True, check=True)
    assert "verify" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["verify"], ["verify", "a"], ["gallery"], ["detect", "--odd", "x"]]
)
def test_usage_problems_are_one_line_and_2(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result.status == 2 and result.out == ""
    assert result.err.startswith("likeness: error: ") and result.err.count("\n") == 1


def test_options_may_stand_between_arguments() -> None:
    for words in (["verify", "--json", "a", "b"], ["verify", "a", "--json", "b"], ["verify", "a", "b", "--json"]):
        options = build_parser(words).parse_args(words)
        assert (options.a, options.b, options.json) == ("a", "b", True)
    words = ["gallery", "enroll", "db", "Ada", "--json", "1.jpg", "--encoder", "mine", "2.jpg"]
    options = build_parser(words).parse_args(words)
    assert (options.name, options.photos, options.encoder) == ("Ada", ["1.jpg", "2.jpg"], "mine")
    words = ["gallery", "enroll", "db", "--folder", "people"]
    options = build_parser(words).parse_args(words)
    assert (options.name, options.photos, options.folder) == (None, [], "people")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UnreadableFile("x.jpg: no such\nfile"), 2, "likeness: error: x.jpg: no such file\n"),
        (MissingDependency("needs torch: pip install 'likeness[torch]'"), 2, "likeness[torch]"),
        (ModuleNotFoundError("No module named 'torch'", name="torch.nn"), 2, "pip install 'likeness[torch]'"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), 2, "internal error: No module named 'numpy'"),
        (OSError(28, "No space left on device", "people.db"), 2, "people.db: No space left on device"),
        (OSError("odd"), 2, "error: odd"),
        (MemoryError(), 2, "out of memory"),
        (ZeroDivisionError("division"), 2, "internal error: ZeroDivisionError: division (LIKENESS_DEBUG=1"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("text"), 2, ""),
    ],
)
def test_every_error_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, words: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(main_module, "build_parser", fail)
    result = cli("verify", "a", "b")
    assert result.status == status
    assert words in result.err and result.err.count("\n") <= 1
    assert result.out == ""


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("division")

    monkeypatch.setattr(main_module, "build_parser", fail)
    monkeypatch.setenv("LIKENESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main_module.main([])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_closed_pipe_is_quiet() -> None:
    code = "import sys; from likeness.cli.main import main; sys.exit(main(['weights', 'list', '--json']))"
    code = "import likeness.cli.weights as w\nw.print_json = lambda _: print('x' * 10_000_000)\n" + code
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
    process.stderr.close()


def test_names_that_the_terminal_cannot_show() -> None:
    """A file name that is no valid UTF-8 is shown escaped, not with a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "likeness", "verify", b"\xff.jpg", "b.jpg"], capture_output=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith(b"likeness: error:") and b"Traceback" not in done.stderr


def test_garbage_is_collected_while_a_command_runs() -> None:
    """In a process of its own, what was imported before is left alone; a caller's collector is not touched."""
    code = """
import gc, sys
from likeness.cli import main
main.main(["weights", "list"])
assert gc.isenabled() and not gc.get_freeze_count()
gc.disable()
main.main(["weights", "list"])
assert not gc.isenabled()
gc.enable()
sys.argv = ["likeness", "weights", "list"]
assert main.main() == 0
assert gc.isenabled() and gc.get_freeze_count()
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
