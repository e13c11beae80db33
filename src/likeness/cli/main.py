"""`likeness VERB …`: finds the verb, loads only its file, turns every named error into one line and an exit code.

Exit codes: 0 done (verify: match), 1 verify: no match, 2 cannot decide or an error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from .. import __version__
from ..errors import LikenessError

# verb -> (file in this folder, one line of help); each file has configure(parser, the words after the verb)
VERBS = {
    "verify": ("verify", "do two photographs show the same person? (1:1)"),
    "detect": ("detect", "find the faces in photographs"),
    "identify": ("identify", "who of a gallery is in the photographs? (1:N)"),
    "gallery": ("gallery", "enroll, verify, list, show, remove, forget, stats, check, export, import"),
    "encode": ("encode", "photographs to codes in a .npz file"),
    "stylize": ("stylize", "paint a photograph like a picture (needs likeness[torch])"),
    "style-score": ("style_score", "how far a picture is from a content and a style (needs likeness[torch])"),
    "apply": ("apply", "paint pictures or a film with a trained net, in one pass"),
    "lens": ("lens", "look inside a net: its layers, the patches that excite its units (needs likeness[torch])"),
    "train": ("train", "train an encoder or a detector (needs likeness[torch])"),
    "evaluate": ("evaluate", "measure error rates on a benchmark"),
    "weights": ("weights", "list, show, path, add, remove, export, calibrate"),
}

DESCRIPTION = (
    "Distances inside a ConvNet: recognise faces at the error rate you ask for (match, no match, cannot decide), paint "
    "one picture like another, look inside the net."
)
EPILOG = (
    "Begin with: likeness verify A.jpg B.jpg. Every verb has its own --help. Exit codes: 0 done or match, 1 no match, "
    "2 cannot decide or an error."
)

# What the CLI may set and the library must not: OpenMP threads that spin while they wait stall a busy machine (100 x),
# and on Linux torch's tensors in pages of 4 kB cost a tenth of the time of a large net (here: pages of 2 MB).
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and in which options may stand between a verb's arguments."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is not None or self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # parse_known_intermixed_args comes back here
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"likeness: error: {message} (see {self.prog} --help)\n")


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with every verb named, but only the one in `arguments` filled in: the others would cost imports."""
    verb = next((word for word in arguments if not word.startswith("-")), None)
    parser = Parser(prog="likeness", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"likeness {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name, (module, line) in VERBS.items():
        sub = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:])
        if name == verb:
            import_module(f".{module}", __package__).configure(sub, arguments[arguments.index(name) + 1 :])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        if argv is None:  # the process is ours: imports make a million objects that stay, and are no garbage
            gc.disable()
        options = build_parser(arguments).parse_args(arguments)
        if argv is None:
            gc.freeze()
            gc.enable()
        status = int(options.run(options) or 0)
        if sys.stdout is not None:  # closed
            sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: --help is 0, a usage problem 2
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "onnx", "onnxscript"):
            return _fail(f"this needs {error.name}, which is not installed: pip install 'likeness[torch]'")
        return _fail(f"internal error: {error}")
    except LikenessError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if os.environ.get("LIKENESS_DEBUG"):
            raise
        return _fail(f"internal error: {type(error).__name__}: {error} (LIKENESS_DEBUG=1 shows where)")


def _fail(message: str) -> int:
    print("likeness: error: " + " ".join(message.split()), file=sys.stderr)
    return 2
