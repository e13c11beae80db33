"""`likeness gallery enroll|verify|list|show|remove|forget|stats|export|import DB ...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GalleryError, InvalidOption
from .common import complain, encoder_option, json_option, option, print_json, print_table, progress_bar
from .verify import EXIT, print_decision

if TYPE_CHECKING:
    from ..recognition.gallery import Gallery


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..recognition.gallery import Gallery

    verbs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:])
        sub.add_argument("db", metavar="DB", help="the gallery's file")
        sub.set_defaults(run=run)
        encoder_option(sub, Gallery)
        json_option(sub)
        return sub

    enroll = add("enroll", run_enroll, "add photographs of a person, or of a folder of people; makes DB if need be")
    enroll.add_argument("name", nargs="?", metavar="NAME", help="the person")
    enroll.add_argument("photos", nargs="*", metavar="PHOTO", help="photographs of the person, or folders of them")
    enroll.add_argument("--folder", metavar="DIR", help="enroll everybody: DIR/NAME/*.jpg or DIR/NAME.jpg")

    verify = add("verify", run_verify, "is the photograph of the person who it claims to be? (1:1)")
    verify.epilog = "Exit code: 0 match, 1 no match, 2 cannot decide or an error."
    verify.add_argument("name", metavar="NAME")
    verify.add_argument("photo", metavar="PHOTO")
    option(verify, Gallery.verify, "--max-fmr", "how often somebody else may pass as the person", metavar="RATE")

    add("list", run_list, "the people in the gallery")
    show = add("show", run_show, "the templates of one person")
    show.add_argument("name", metavar="NAME")
    remove = add("remove", run_remove, "take out single templates, by their numbers (see show)")
    remove.add_argument("templates", nargs="+", type=int, metavar="ID")
    forget = add("forget", run_forget, "delete a person so that no byte is left in the file")
    forget.add_argument("name", metavar="NAME")
    add("stats", run_stats, "how many people and templates, made by which encoder")
    export = add("export", run_export, "write every template to one file, which import reads")
    export.add_argument("file", metavar="FILE")
    import_ = add("import", run_import, "add the templates of an exported file; makes DB if need be")
    import_.add_argument("file", metavar="FILE")


def opened(options: argparse.Namespace, *, create: bool = False) -> Gallery:
    """The gallery of `options.db`; one that does not exist is made only where something is about to be put in."""
    from ..recognition.gallery import Gallery

    if not create and not Path(options.db).exists():
        raise GalleryError(
            f"{options.db}: no such gallery; make one with: likeness gallery enroll {options.db} NAME PHOTO"
        )
    return Gallery(options.db, encoder=options.encoder)


def run_enroll(options: argparse.Namespace) -> int:
    from ..samples.folders import list_images

    if bool(options.folder) == bool(options.name) or (options.name and not options.photos):
        raise InvalidOption("enroll needs NAME and PHOTO..., or --folder DIR")
    with opened(options, create=True) as gallery:
        if options.folder:
            with progress_bar("enroll") as on_progress:
                enrolments = list(gallery.enroll_folder(options.folder, on_progress=on_progress))
        else:
            enrolments = [gallery.enroll(options.name, list_images(options.photos))]
    plain = [enrolment.to_dict() for enrolment in enrolments]
    if options.json:
        print_json(plain if options.folder else plain[0])
    else:
        rows = [(entry["subject"], len(entry["accepted"]), len(entry["rejected"])) for entry in plain]
        print_table(("subject", "enrolled", "rejected"), rows)
        for entry in plain:
            for origin, reason in entry["rejected"]:
                complain(origin, reason)
    return 0 if any(entry["accepted"] for entry in plain) else 2


def run_verify(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        decision = gallery.verify(options.name, options.photo, max_fmr=options.max_fmr)
    print_json(decision.to_dict()) if options.json else print_decision(decision.to_dict())
    return EXIT[decision.decision]


def run_list(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        subjects = [_plain(subject) for subject in gallery.subjects()]
    if options.json:
        print_json(subjects)
    else:
        _print_records(subjects, "subject")
    return 0


def run_show(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        shown = _plain(gallery.show(options.name))
    if options.json:
        print_json(shown)
    else:
        _print_records(shown["templates"] if isinstance(shown, dict) and "templates" in shown else shown, "template")
    return 0


def run_remove(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        for template in options.templates:
            gallery.remove(template)
    print_json({"removed": options.templates}) if options.json else print(f"removed {len(options.templates)}")
    return 0


def run_forget(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        receipt = _plain(gallery.forget(options.name))
    print_json(receipt) if options.json else _print_fields(receipt)
    return 0


def run_stats(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        stats = _plain(gallery.stats())
    print_json(stats) if options.json else _print_fields(stats)
    return 0


def run_export(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        gallery.export(options.file)
        stats = _plain(gallery.stats())
    summary = {"exported": options.file, **{name: stats[name] for name in ("subjects", "templates") if name in stats}}
    print_json(summary) if options.json else _print_fields(summary)
    return 0


def run_import(options: argparse.Namespace) -> int:
    with opened(options, create=True) as gallery:
        imported = gallery.import_(options.file)
    summary = {"imported": options.file, **({"templates": imported} if isinstance(imported, int) else {})}
    print_json(summary) if options.json else _print_fields(summary)
    return 0


def _plain(value: Any) -> Any:
    """Plain JSON types of a result, or of a tuple of results."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _print_records(records: Any, name: str) -> None:
    if not records or not isinstance(records[0], dict):
        print_table((name,), [(record,) for record in records])
        return
    fields = [field for field, value in records[0].items() if not isinstance(value, (dict, list))]
    print_table(fields, [[record[field] for field in fields] for record in records])


def _print_fields(record: dict[str, Any]) -> None:
    width = max(map(len, record))
    for field, value in record.items():
        print(f"{field.ljust(width)}  {value}")
