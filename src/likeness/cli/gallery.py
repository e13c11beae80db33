"""`likeness gallery enroll|verify|list|show|remove|forget|stats|check|export|import DB ...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CorruptGallery, GalleryError, InvalidOption
from ..recognition.decision import UNREADABLE
from ..recognition.naming import encoder_called
from .common import (
    complain,
    encoder_option,
    json_option,
    option,
    print_fields,
    print_json,
    print_table,
    progress_bar,
    size_of,
)
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
    check = add("check", run_check, "look at every byte: is anything damaged?")
    check.epilog = "Exit code: 0 sound, 2 damaged or an error."
    export = add("export", run_export, "write every template to one file, which import reads")
    export.add_argument("file", metavar="FILE")
    import_ = add("import", run_import, "add the templates of an exported file; makes DB if need be")
    import_.add_argument("file", metavar="FILE")


def opened(options: argparse.Namespace, *, create: bool = False) -> Gallery:
    """The gallery of `options.db`; with `create`, one that does not exist is made once something is put in."""
    from ..recognition.gallery import Gallery

    if not create and not Path(options.db).exists():
        raise GalleryError(
            f"{options.db}: no such gallery; make one with: likeness gallery enroll {options.db} NAME PHOTO"
        )
    return Gallery(options.db, encoder=options.encoder, create_empty=False)


def run_enroll(options: argparse.Namespace) -> int:
    from ..samples.folders import list_images

    if bool(options.folder) == bool(options.name) or (options.name and not options.photos):
        raise InvalidOption("enroll needs NAME and PHOTO..., or --folder DIR")
    with opened(options, create=True) as gallery, progress_bar("enroll") as on_progress:
        if options.folder:
            enrolments = list(gallery.enroll_folder(options.folder, on_progress=on_progress))
        else:
            photos = list_images(options.photos, must_exist=False)
            enrolments = [gallery.enroll(options.name, photos, on_progress=on_progress)]
    plain = [enrolment.to_dict() for enrolment in enrolments]
    if options.json:
        print_json(plain if options.folder else plain[0])
    else:
        rows = [
            (entry["subject"], *(len(entry[name]) for name in ("accepted", "known", "rejected"))) for entry in plain
        ]
        print_table(("subject", "enrolled", "known", "rejected"), rows)
    rejected = [one for entry in plain for one in entry["rejected"]]
    for origin, reason in rejected:
        complain(origin, reason)
    kept = any(entry["accepted"] or entry["known"] for entry in plain)
    return 0 if kept and not any(UNREADABLE in reason for _, reason in rejected) else 2


def run_verify(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        decision = gallery.verify(options.name, options.photo, max_fmr=options.max_fmr)
    print_json(decision.to_dict()) if options.json else print_decision(decision.to_dict())
    return EXIT[decision.decision]


def run_list(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        subjects = [subject.to_dict() for subject in gallery.subjects()]
    if options.json:
        print_json(subjects)
    else:
        print_table(("subject", "templates"), [(one["subject"], one["templates"]) for one in subjects])
    return 0


def run_show(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        shown = gallery.show(options.name).to_dict()
    if options.json:
        print_json(shown)
        return 0
    rows = []
    for template in shown["templates"]:
        when = datetime.fromtimestamp(template["created"]).isoformat(" ", "minutes")
        rows.append((template["id"], when, (template["quality"] or {}).get("size"), template["origin"]))
    print_table(("id", "enrolled", "face size", "origin"), rows)
    return 0


def run_remove(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        receipt = gallery.remove(options.templates).to_dict()
    print_json(receipt) if options.json else _print_receipt("removed", receipt, options.db)
    return 0


def run_forget(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        receipt = gallery.forget(options.name).to_dict()
    print_json(receipt) if options.json else _print_receipt("forgotten", receipt, options.db)
    return 0


def _print_receipt(done: str, receipt: dict[str, Any], db: str) -> None:
    print(f"{done}: {receipt['templates']} templates", end="")
    if receipt["complete"]:
        print(f"; no byte of them is left in {db}")
    else:
        print(f". Bytes of them may be left in {db} ({receipt['hindrance']}); the next one to open it wipes them")


def run_stats(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        stats = gallery.stats().to_dict()
    if options.json:
        print_json(stats)
        return 0
    fields = {
        "people": stats["subjects"],
        "templates": stats["templates"],
        "made with": encoder_called(stats["fingerprint"]) if stats["fingerprint"] else "no encoder yet",
        "code length": stats["code_length"],
        "file": stats["path"],
        "size": f"{size_of(stats['bytes'])}, schema {stats['schema']}, revision {stats['revision']}",
        "deleted bytes": "some may still be in the file" if stats["wipe_pending"] else None,
        "verify": "no thresholds: the encoder is not calibrated, or not the gallery's",
    }
    if stats["threshold_verify"] is not None:
        fields["verify"] = f"matches up to distance {stats['threshold_verify']:.4f} (max_fmr 0.001, one template)"
    if stats["threshold_identify"] is not None:
        strangers = f"{100 * stats['fpir_unadjusted']:.2g} of 100 strangers"
        fields["identify"] = f"matches up to distance {stats['threshold_identify']:.4f} (max_fpir 0.01, all templates)"
        fields["unadjusted"] = f"at verify's threshold {strangers} would be taken for somebody"
    print_fields(fields)
    return 0


def run_check(options: argparse.Namespace) -> int:
    """SQLite's own check, every template's checksum, code and fingerprint, and their number."""
    try:
        with opened(options) as gallery:
            gallery.check()
            stats = gallery.stats()
    except CorruptGallery as error:
        if not options.json:
            raise
        print_json({"file": options.db, "sound": False, "error": str(error)})
        return 2
    found = {"file": options.db, "sound": True, "subjects": stats.subjects, "templates": stats.templates}
    if options.json:
        print_json({**found, "fingerprint": stats.fingerprint, "error": None})
    else:
        print(f"{options.db} is sound: {stats.templates} templates of {stats.subjects} people")
    return 0


def run_export(options: argparse.Namespace) -> int:
    with opened(options) as gallery:
        templates = gallery.export(options.file)
    summary = {"file": options.file, "templates": templates}
    print_json(summary) if options.json else print(f"exported {templates} templates to {options.file}")
    return 0


def run_import(options: argparse.Namespace) -> int:
    with opened(options, create=True) as gallery:
        imported = gallery.import_(options.file).to_dict()
    if options.json:
        print_json({"file": options.file, **imported})
    else:
        already = f"; {imported['known']} were there already" if imported["known"] else ""
        print(f"imported {imported['templates']} templates from {options.file}{already}")
    return 0
