"""Ours, YuNet and dlib's HOG detector side by side on the same photographs.

    python benchmarks/detector.py [--lfw 2000] [--out out/detector] [--data FOLDER]

lfw        photographs with one known face in the middle: share of pictures where a face covers the centre (recall)
wider      scenes, test split, hand-drawn boxes of `wider_val`: share found (IoU >= 0.35), from 10, 16, 20 px on
scenes     the same over all sets whose boxes were drawn by hand
precision  share of detections that lie on a reference face (YuNet's labels, doubtful ones included, or a given box)
landmarks  mean distance to the reference's five points per distance between its eyes (labels: YuNet, two scales)
no_face    pictures without a face in which something is found: by default (from 20 px on), and searched like scenes
ms         per picture of LFW (250 x 250), median

YuNet is run by our own `Detector`: the same scales, suppression and threshold rule. dlib (wheel dlib-bin) finds faces
from 80 px on, so it is given the picture enlarged twice (its `upsample` argument: once for LFW, twice for scenes);
without the wheel its columns stay empty. Writes OUT/detector.json and OUT/detector.md; with --sheet, OUT/group.jpg:
group photographs with boxes. Targets of ours: recall on LFW 99.5 %, WIDER boxes within 0.05 of YuNet in the same run,
an alarm in one of 50 pictures without a face at most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from targets import Target, add_strict, report, said, status

from likeness.faces.decoding import iou
from likeness.faces.detection import MIN_SCORE, Detector
from likeness.samples.folders import list_images
from likeness.samples.images import read_image

MATCH = 0.35  # IoU: hand-drawn boxes differ that much from source to source
Found = list[tuple[list[float], list | None]]  # box, landmarks of each face
Run = Callable[[np.ndarray, float], Found]


def ours(detector: Detector, min_score: float) -> Run:
    def run(image: np.ndarray, min_size: float) -> Found:
        faces = detector.detect(image, min_score=min_score, min_size=min_size)
        return [(list(f.box), [list(p) for p in f.landmarks]) for f in faces]

    return run


def dlib_hog() -> Run | None:
    try:
        import dlib
    except ImportError:
        return None
    find = dlib.get_frontal_face_detector()

    def run(image: np.ndarray, min_size: float) -> Found:
        rects = find(image, 1 if min_size >= 20 else 2)
        return [([r.left(), r.top(), r.width(), r.height()], None) for r in rects]

    return run


def on_lfw(run: Run, folder: Path, count: int) -> dict[str, Any]:
    files = list_images([folder])
    random.Random(0).shuffle(files)
    hits, times = 0, []
    for path in files[:count]:
        image = read_image(path)
        start = time.perf_counter()
        faces = run(image, 20)
        times.append(1000 * (time.perf_counter() - start))
        h, w = image.shape[:2]
        hits += any(x < w / 2 < x + bw and y < h / 2 < y + bh and min(bw, bh) > 0.15 * h for (x, y, bw, bh), _ in faces)
    n = min(count, len(files))
    return {"lfw_recall": hits / n, "lfw_pictures": n, "ms": statistics.median(times)}


def on_scenes(run: Run, faces_folder: Path, labels: dict[str, Any]) -> dict[str, Any]:
    found_at: dict[str, list[tuple[float, bool]]] = {"wider": [], "scenes": []}
    false_alarms, tiny_alarms, on_face, detections, errors, empties = 0, 0, 0, 0, [], 0
    reference_hits, reference_total = 0, 0
    for name, entry in labels.items():
        if entry["split"] != "test":
            continue
        image = read_image(faces_folder / name)
        faces = run(image, 8)
        boxes = np.array([b for b, _ in faces], np.float64).reshape(-1, 4)
        if entry["kind"] == "no_face":
            empties += 1
            false_alarms += len(run(image, 20)) > 0
            tiny_alarms += len(faces) > 0
            continue
        given = np.array([b[:4] for b in entry["given_boxes"] or []], np.float64).reshape(-1, 4)
        labelled = np.array([f["box"] for f in entry["faces"]], np.float64).reshape(-1, 4)
        hit = iou(given, boxes).max(1, initial=0) >= MATCH
        for box, one in zip(given, hit, strict=True):
            sized = (float(min(box[2:])), bool(one))
            if "wider_val" in name:
                found_at["wider"].append(sized)
            if "ilc2021" not in name:  # its boxes omit faces and are cut differently
                found_at["scenes"].append(sized)
        union = np.concatenate([given, labelled])
        overlap = iou(boxes, union)
        centre = boxes[:, :2] + boxes[:, 2:] / 2
        inside = (
            (centre[:, None] > union[None, :, :2]) & (centre[:, None] < union[None, :, :2] + union[None, :, 2:])
        ).all(2)
        on_face += int(((overlap >= MATCH) | (inside & (overlap >= 0.15))).any(1).sum()) if len(union) else 0
        detections += len(boxes)
        sure = [f for f in entry["faces"] if f["score"] >= 0.7 and min(f["box"][2:]) >= 10]
        for face in sure:
            reference_total += 1
            if not len(boxes):
                continue
            best = iou([face["box"]], boxes)[0]
            if best.max() >= 0.5:
                reference_hits += 1
                landmarks = faces[int(best.argmax())][1]
                if landmarks is not None and min(face["box"][2:]) >= 20:
                    want = np.array(face["landmarks"])
                    eyes = np.linalg.norm(want[0] - want[1])
                    if eyes > 0.2 * face["box"][2]:  # profiles have both eyes in one place: nothing to divide by
                        errors.append(float(np.linalg.norm(np.array(landmarks) - want, axis=1).mean() / eyes))
    result: dict[str, Any] = {
        "precision": on_face / max(1, detections),
        "detections": detections,
        "reference_recall_10": reference_hits / max(1, reference_total),
        "reference_faces_10": reference_total,
        "landmark_error": statistics.mean(errors) if errors else None,
        "landmark_faces": len(errors),
        "no_face_alarms": false_alarms,
        "no_face_alarms_8": tiny_alarms,
        "no_face_pictures": empties,
    }
    for name, pairs in found_at.items():
        for least in (10, 16, 20):
            hits = [one for size, one in pairs if size >= least]
            result[f"{name}_recall_{least}"] = sum(hits) / max(1, len(hits))
            result[f"{name}_boxes_{least}"] = len(hits)
    return result


def sheet(detector: Detector, folder: Path, out: Path, *, width: int = 1600, columns: int = 4) -> None:
    """All group photographs with their boxes on one page."""
    from likeness.cli.detect import draw

    side = width // columns
    pictures = []
    for path in list_images([folder]):
        image = Image.fromarray(read_image(path))
        image.thumbnail((1600, 1600))
        array = np.asarray(image)
        made = Image.fromarray(draw(array, detector.detect(array, min_size=10)))
        made.thumbnail((side, side))
        pictures.append(made)
    page = Image.new("RGB", (width, side * -(-len(pictures) // columns)))
    for i, picture in enumerate(pictures):
        page.paste(picture, (i % columns * side, i // columns * side))
    page.save(out, quality=88)


ROWS = (
    ("LFW recall", "lfw_recall", "lfw_pictures"),
    ("WIDER boxes >= 10 px", "wider_recall_10", "wider_boxes_10"),
    ("WIDER boxes >= 16 px", "wider_recall_16", "wider_boxes_16"),
    ("WIDER boxes >= 20 px", "wider_recall_20", "wider_boxes_20"),
    ("all hand-drawn boxes >= 10 px", "scenes_recall_10", "scenes_boxes_10"),
    ("all hand-drawn boxes >= 20 px", "scenes_recall_20", "scenes_boxes_20"),
    ("reference faces >= 10 px", "reference_recall_10", "reference_faces_10"),
    ("precision", "precision", "detections"),
    ("landmark error / eye distance, faces >= 20 px", "landmark_error", "landmark_faces"),
    ("no_face pictures with a false alarm", "no_face_alarms", "no_face_pictures"),
    ("the same, searched from 8 px on", "no_face_alarms_8", "no_face_pictures"),
    ("ms per 250 x 250 picture (median)", "ms", None),
)


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| | n | " + " | ".join(results) + " |", "|---|---|" + "---|" * len(results)]
    for title, key, count in ROWS:
        cells = []
        for result in results.values():
            value = result.get(key)
            cells.append(
                "–" if value is None else f"{value:.4f}" if isinstance(value, float) and key != "ms" else f"{value:.4g}"
            )
        first = next(iter(results.values()))
        shared = count if count in ("lfw_pictures", "no_face_pictures") or (count or "").count("boxes") else None
        n = first.get(count, "") if shared or count == "reference_faces_10" else ""
        lines.append(f"| {title} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def targets_of_ours(results: dict[str, dict[str, Any]]) -> tuple[Target, ...]:
    """What our detector is to reach, as far as it was run; some of it beside what YuNet reached in the same run."""
    if "ours" not in results:
        return ()
    found = [Target("lfw_recall", 0.995, least=True)]
    if "yunet" in results:
        for least in (10, 16):
            key = f"wider_recall_{least}"
            found.append(Target(key, results["yunet"][key] - 0.05, least=True))
    return (*found, Target("no_face_alarms", results["ours"]["no_face_pictures"] / 50))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIKENESS_DATA", "../shared/data")))
    parser.add_argument("--lfw", type=int, default=2000, help="photographs of LFW, drawn with seed 0 (all: 13233)")
    parser.add_argument("--min-score", type=float, default=MIN_SCORE, help="of ours")
    parser.add_argument("--only", nargs="+", default=["ours", "yunet", "dlib"])
    parser.add_argument("--detector", type=Path, help="ONNX file instead of the shipped one")
    parser.add_argument("--sheet", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/detector"))
    add_strict(parser)
    options = parser.parse_args()
    faces = options.data / "faces"
    labels = json.loads((faces / "scenes.json").read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    shipped = Detector.from_file(options.detector) if options.detector else Detector.load()
    runs: dict[str, Run | None] = {}
    if "ours" in options.only:
        runs["ours"] = ours(shipped, options.min_score)
    if "yunet" in options.only:
        runs["yunet"] = ours(Detector.from_file(options.data / "weights" / "yunet_n_dynamic.onnx"), 0.5)
    if "dlib" in options.only:
        runs["dlib HOG"] = dlib_hog()
    results: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        if run is not None:
            results[name] = on_lfw(run, faces / "lfw", options.lfw) | on_scenes(run, faces, labels)
            print(name, json.dumps(results[name]), flush=True)
    targets, reached = targets_of_ours(results), results.get("ours", {})
    described = {"summary": results, "load": os.getloadavg(), "min_score": options.min_score, "match_iou": MATCH}
    described["targets"] = report(targets, reached)
    (options.out / "detector.json").write_text(json.dumps(described, indent=2))
    (options.out / "detector.md").write_text(table(results))
    print(table(results))
    print("targets of ours:", said(targets, reached))
    if options.sheet:
        sheet(shipped, faces / "group", options.out / "group.jpg")
        print(options.out / "group.jpg")
    return status(all(target.met(reached) for target in targets), strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
