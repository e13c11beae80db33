"""`likeness weights list|show|path|add|remove|export|calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .common import (
    json_option,
    option,
    print_fields,
    print_json,
    print_table,
    progress_bar,
    refuse_overwriting,
    size_of,
)

RATES = (1e-2, 1e-3, 1e-4, 1e-5)  # of a calibration, as shown in text


def configure(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from ..nets.catalogue import add as catalogue_add

    verbs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, run: Any, help: str, metavar: str | None = "NAME") -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:])
        if metavar:
            sub.add_argument("name" if metavar == "NAME" else "file", metavar=metavar)
        json_option(sub)
        sub.set_defaults(run=run)
        return sub

    add("list", run_list, "every set of weights that can be named", None)
    add("show", run_show, "everything known about one of them")
    add("path", run_path, "where its file is (downloaded first if need be), after checking its SHA-256")

    own = add("add", run_add, "register an encoder of aligned 112×112 face crops, or a net for style, as yours", "FILE")
    own.add_argument("--name", required=True, help="what to call it")
    kinds = "encoder (.onnx), or perceptual (.safetensors, .npz), which takes no other option than --licence"
    own.add_argument("--kind", choices=("encoder", "perceptual"), default="encoder", help=f"{kinds} (default: encoder)")
    option(own, catalogue_add, "--input-order", "order of its colour channels", choices=("rgb", "bgr"))
    option(own, catalogue_add, "--mean", "x = (pixel - mean) / scale", type=float)
    option(own, catalogue_add, "--scale", "see --mean", type=float)
    own.add_argument("--mirror", action="store_true", help="average the codes of the crop and its mirror image")
    option(own, catalogue_add, "--licence", "its licence, for the record")

    add("remove", run_remove, "take one of your own out of the catalogue")
    export = add("export", run_export, "write a trained net as .onnx, checked against torch", "NET.safetensors")
    export.add_argument("-o", "--output", required=True, metavar="NET.onnx")
    calibrate = add(
        "calibrate", run_calibrate, "fit what its distances mean, on a folder of people it was not trained on"
    )
    calibrate.add_argument("folder", metavar="FOLDER", help="FOLDER/NAME/*.jpg, a thousand people if possible")


def run_list(options: argparse.Namespace) -> int:
    from ..nets.catalogue import entries

    names = ("name", "kind", "shipped", "bytes", "licence", "fingerprint")
    found = [entry.to_dict() for entry in entries()]
    if options.json:
        print_json(found)
    else:
        print_table(names, [[_short(entry[name]) for name in names] for entry in found])
    return 0


def run_show(options: argparse.Namespace) -> int:
    from ..nets.catalogue import entry

    found = entry(options.name).to_dict()
    if options.json:
        print_json(found)
        return 0
    fields = {name: value for name, value in found.items() if name not in ("shipped", "bytes")}
    fields["path"] = fields["path"] or "not fetched yet: likeness weights path " + options.name
    calibrated = None if found["kind"] != "encoder" else found["calibration"] or "none: likeness weights calibrate"
    print_fields({**fields, "size": size_of(found["bytes"]), "calibration": calibrated})
    return 0


def run_path(options: argparse.Namespace) -> int:
    from ..nets import catalogue

    with progress_bar(options.name) as on_progress:
        path = str(catalogue.path(options.name, on_progress=on_progress))
    print_json({"name": options.name, "path": path}) if options.json else print(path)
    return 0


def run_add(options: argparse.Namespace) -> int:
    from ..nets.catalogue import add, add_perceptual

    if options.kind == "perceptual":
        entry = add_perceptual(options.file, name=options.name, licence=options.licence)
        print_json(entry.to_dict()) if options.json else print(f"added {entry.name}, fingerprint {entry.fingerprint}")
        return 0
    entry = add(
        Path(options.file),
        name=options.name,
        input_order=options.input_order,
        mean=options.mean,
        scale=options.scale,
        mirror=options.mirror,
        licence=options.licence,
    )
    if options.json:
        print_json(entry.to_dict())
    else:
        print(f"added {entry.name}, fingerprint {entry.fingerprint}, codes of {entry.code_length}")
        print(f"Next: likeness weights calibrate {entry.name} FOLDER, so that error rates mean something.")
    return 0


def run_remove(options: argparse.Namespace) -> int:
    from ..nets.catalogue import remove

    remove(options.name)
    print_json({"removed": options.name}) if options.json else print(f"removed {options.name}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    from ..nets.export import export_encoder

    refuse_overwriting([options.output], [options.file])
    metadata = _metadata(options.file)
    if metadata.get("kind") == "likeness.detector":
        from ..faces.net import export

        worst = export(options.file, options.output)
        size = Path(options.output).stat().st_size
        report: dict[str, Any] = {"output": options.output, "bytes": size, "max_difference": worst}
    elif "likeness.transform" in metadata:
        from ..style.transform import export as export_transform

        report = export_transform(options.file, options.output)
    elif "likeness.adain" in metadata:
        from ..style.adain import export as export_adain

        report = export_adain(options.file, options.output)
    else:
        report = export_encoder(options.file, options.output)
    print_json(report) if options.json else print_fields(report)
    return 0


def _metadata(file: str) -> dict[str, str]:
    """What a safetensors file says of itself; a file that cannot be read is left to the export to complain of."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def run_calibrate(options: argparse.Namespace) -> int:
    from ..recognition.calibrating import calibrate_encoder

    with progress_bar("calibrate") as on_progress:
        calibration = calibrate_encoder(options.name, options.folder, on_progress=on_progress)
    if options.json:
        print_json(calibration.to_dict())
        return 0
    people = f"{calibration.samples:,} photographs of {calibration.subjects:,} people"
    print(f"calibrated {options.name} ({calibration.fingerprint}) on {people}, {calibration.pairs:,} pairs")
    rows = [
        (f"{rate:g}", calibration.threshold(rate), "extrapolated" if calibration.extrapolated(rate) else "counted")
        for rate in RATES
    ]
    print_table(("FMR", "threshold", ""), rows)
    return 0


def _short(value: Any) -> Any:
    """A cell of the table: licences can be paragraphs, and are whole in `show` and --json."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if not isinstance(value, str) or len(value) <= 44 else value[:43].rstrip() + "…"
