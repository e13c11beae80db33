"""View 2 on made-up sets with known answers, and on the real one where it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import InvalidOption, UnreadableFile
from likeness.evaluation.lfw import Pair, cross_validate, evaluate_lfw, find_list, read_pairs
from likeness.evaluation.rates import tar_at_far
from likeness.recognition.encoder import Encoding, Template, central

FOLDS, COUNT = 5, 4


class Coder:
    """Reads a code out of a text file; no photograph, no net. Files that hold "-" give no template."""

    name, fingerprint, code_length, calibration = "coder", "f" * 16, 2, None

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_many(self, sources, on_progress=None) -> Iterator[Encoding]:
        for i, path in enumerate(sources):
            self.seen.append(Path(path).name)
            text = Path(path).read_text()
            if on_progress:
                on_progress(i + 1, len(sources), {})
            if text == "-":
                yield Encoding((), ("no face",))
            else:
                angle = float(text)
                yield Encoding((Template(np.array([np.cos(angle), np.sin(angle)], np.float32), self.fingerprint),))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two photographs each of 40 people, each person at an own angle, in a set with a list of 5 folds of 4 + 4."""
    folder = tmp_path / "lfw"
    lines = [f"{FOLDS}\t{COUNT}"]
    for fold in range(FOLDS):
        people = [f"P{fold}{i}" for i in range(2 * COUNT)]
        for i, person in enumerate(people):
            (folder / person).mkdir(parents=True)
            for number in (1, 2):
                (folder / person / f"{person}_{number:04d}.jpg").write_text(str(0.4 * i + 0.01 * number))
        lines += [f"{person}\t1\t2" for person in people[:COUNT]]
        lines += [f"{people[i]}\t1\t{people[i + 1]}\t2" for i in range(COUNT)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_a_perfect_encoder(photographs: Path) -> None:
    coder, seen = Coder(), []
    result = evaluate_lfw(photographs, encoder=coder, on_progress=lambda *args: seen.append(args[:2]))
    assert (result.accuracy, result.standard_error, result.failed) == (1.0, 0.0, 0)
    assert len(coder.seen) == len(set(coder.seen)) == result.photographs  # each once
    assert seen[-1] == (result.photographs, result.photographs)
    assert result.pairs == FOLDS * 2 * COUNT
    assert result.tar_at_far.tar == 1.0
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {"accuracy", "standard_error", "failed", "folds", "tar_at_far", "seconds", "fingerprint"} <= set(found)
    assert [fold["fold"] for fold in found["folds"]] == [1, 2, 3, 4, 5]


def test_the_face_nearest_the_centre_is_chosen_where_the_encoder_detects(photographs: Path) -> None:
    class Detecting(Coder):
        detector, chosen = object(), None

        def encode_many(self, sources, on_progress=None, *, choose=None) -> Iterator[Encoding]:
            self.chosen = choose
            return super().encode_many(sources, on_progress)

    coder = Detecting()
    evaluate_lfw(photographs, encoder=coder)
    assert coder.chosen is central


def test_thresholds_are_squared_distances(photographs: Path) -> None:
    """Mated codes lie 0.01 radians apart, others 0.41: a chord squared is 4 sin^2 of half the angle."""
    expected = (4 * np.sin(0.005) ** 2 + 4 * np.sin(0.205) ** 2) / 2
    for fold in evaluate_lfw(photographs, encoder=Coder()).folds:
        assert fold.threshold == pytest.approx(expected, rel=1e-4)


def test_the_interval_is_a_bootstrap_over_both_people_of_a_pair(photographs: Path) -> None:
    rng = np.random.default_rng(3)
    for file in sorted(photographs.rglob("*.jpg")):
        file.write_text(str(float(file.parent.name[2]) * 0.4 + rng.normal(0, 0.08)))
    angle = {file.stem: float(file.read_text()) for file in photographs.rglob("*.jpg")}
    mated, non_mated = [], []  # distance, then who
    for fold in range(FOLDS):
        for i in range(COUNT):
            a, b = f"P{fold}{i}", f"P{fold}{i + 1}"
            mated.append((4 * np.sin((angle[f"{a}_0001"] - angle[f"{a}_0002"]) / 2) ** 2, a))
            non_mated.append((4 * np.sin((angle[f"{a}_0001"] - angle[f"{b}_0002"]) / 2) ** 2, a, b))
    expected = tar_at_far(
        np.array([distance for distance, _ in mated]),
        np.array([distance for distance, *_ in non_mated]),
        1e-3,
        mated_subjects=np.array([a for _, a in mated]),
        non_mated_subjects=np.array([who for _, *who in non_mated]),
    )
    found = evaluate_lfw(photographs, encoder=Coder()).tar_at_far
    assert found.far == 1e-3
    assert found.low < found.tar < found.high
    assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-5)


def test_failed_photographs_are_errors_of_all_their_pairs(photographs: Path) -> None:
    (photographs / "P00" / "P00_0001.jpg").write_text("-")  # in a mated and in a non-mated pair of fold 1
    (photographs / "P35" / "P35_0002.jpg").write_text("-")  # in no pair
    result = evaluate_lfw(photographs, encoder=Coder())
    assert result.failed == 1 and result.failed_pairs == 2
    assert result.failures == (("P00_0001.jpg", "no face"),)
    assert [fold.accuracy for fold in result.folds] == [0.75, 1, 1, 1, 1]
    assert result.accuracy == pytest.approx(0.95)
    assert result.standard_error == pytest.approx(np.std([0.75, 1, 1, 1, 1], ddof=1) / np.sqrt(5))
    assert result.tar_at_far.mated == FOLDS * COUNT and result.tar_at_far.tar == pytest.approx(1 - 1 / (FOLDS * COUNT))
    assert result.tar_at_far.non_mated == FOLDS * COUNT - 1


def test_nothing_found_at_all_is_said(photographs: Path) -> None:
    for file in photographs.rglob("*.jpg"):
        file.write_text("-")
    with pytest.raises(InvalidOption, match="too few"):
        evaluate_lfw(photographs, encoder=Coder())


def test_a_fold_never_sees_its_own_threshold() -> None:
    """Fold 1's distances are shifted: with its own threshold it would be perfect, with the others' it is half wrong."""
    pairs = [Pair(fold, ("a", 1), ("a" if mated else "b", 2)) for fold in (1, 2, 3) for mated in (True, False)]
    distances = np.array([2.5, 3.5, 0.5, 1.5, 0.5, 1.5])
    folds = cross_validate(pairs, distances)
    assert [fold.accuracy for fold in folds] == [0.5, 1.0, 1.0]
    assert folds[0].threshold == pytest.approx(1.0)


def test_the_list_is_found_where_it_may_be(photographs: Path, tmp_path: Path) -> None:
    here = tmp_path / "pairs.txt"
    assert find_list(photographs).samefile(here)
    (tmp_path / "lfw_lists").mkdir()
    (tmp_path / "lfw_lists" / "pairs.txt").write_text(here.read_text())
    assert find_list(photographs).samefile(tmp_path / "lfw_lists" / "pairs.txt")
    (photographs / "pairs.txt").write_text(here.read_text())
    assert find_list(photographs).samefile(photographs / "pairs.txt")
    assert find_list(photographs, here) == here
    assert find_list(photographs, tmp_path / "lfw_lists") == tmp_path / "lfw_lists" / "pairs.txt"
    with pytest.raises(UnreadableFile, match="lists="):
        find_list(photographs, tmp_path / "nowhere")
    with pytest.raises(UnreadableFile, match="no such folder"):
        find_list(tmp_path / "nowhere")


def test_an_incomplete_set_is_refused(photographs: Path) -> None:
    (photographs / "P00" / "P00_0002.jpg").unlink()
    with pytest.raises(UnreadableFile, match=r"P00_0002.*incomplete"):
        evaluate_lfw(photographs, encoder=Coder())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "a\tb\n",
        "2\t1\nA\t1\t2\nA\t1\tB\t2\n",
        "2\t1\nA\t1\tB\t2\nA\t1\t2\nA\t1\t2\nA\t1\tB\t2\n",
        "2\t1\nA\tx\t2\nA\t1\tB\t2\nA\t1\t2\nA\t1\tB\t2\n",
        "2\t0\nA\t1\t2\n",
        "1\t1\nA\t1\t2\nA\t1\tB\t2\n",
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(InvalidOption, match="not a list of pairs"):
        read_pairs(tmp_path / "pairs.txt")


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile):
        read_pairs(tmp_path / "pairs.txt")


def test_the_official_list(data: Path) -> None:
    pairs = read_pairs(data / "faces" / "lfw_lists" / "pairs.txt")
    assert len(pairs) == 6000 and sum(pair.mated for pair in pairs) == 3000
    assert len({photograph for pair in pairs for photograph in (pair.a, pair.b)}) == 7701
    assert all(pair.a[0] != pair.b[0] for pair in pairs if not pair.mated)
    assert find_list(data / "faces" / "lfw").samefile(data / "faces" / "lfw_lists" / "pairs.txt")
