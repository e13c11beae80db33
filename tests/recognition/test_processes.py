"""Many processes on one gallery, and processes that are killed: against a serial oracle, with kill -9."""

import json
import multiprocessing
import os
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gallery_fakes import FakeEncoder, calibrated, code_of, folder

from likeness.errors import SubjectNotFound, TemplateNotFound
from likeness.recognition.gallery import Gallery
from likeness.recognition.stores.sqlite import SqliteStore

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
PHOTOS = 5  # per person: all of them or none

code = lru_cache(maxsize=None)(code_of)


@pytest.fixture(scope="module")
def encoder():
    return calibrated()


def enroll_and_forget(path, log, first):
    """Enrol one person after another and now and then forget one; each deed is logged before and after."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(*words):
        os.write(file, (json.dumps(words) + "\n").encode())

    with Gallery(path, encoder=FakeEncoder()) as gallery:
        for person in range(first, first + 10_000):
            note("enrolling", person)
            gallery.enroll(f"person {person}", [f"p{person}/{photo}" for photo in range(PHOTOS)])
            note("enrolled", person)
            if person % 4 == 3:
                note("forgetting", person - 2)
                gallery.forget(f"person {person - 2}")
                note("forgotten", person - 2)


def kill_and_look(root, rounds, seed):
    """Start, kill -9 at a random moment, reopen and compare with the log; returns how many people there were."""
    rng = np.random.default_rng(seed)
    path, log = root / "people.db", root / "log"
    enrolled_in_all = 0
    for turn in range(rounds):
        if turn % 5 == 0:  # every fifth round begins with no file: its making may be what is interrupted
            for file in root.iterdir():
                file.unlink()
        child = FORK.Process(target=enroll_and_forget, args=(path, log, 1_000_000 * turn))
        child.start()
        time.sleep(rng.uniform(0.0, 0.02) if turn % 5 == 0 else rng.uniform(0.02, 0.25))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        lines = log.read_text().splitlines() if log.exists() else []
        deeds = [tuple(json.loads(line)) for line in lines]
        with Gallery(path, encoder=FakeEncoder()) as gallery:
            gallery.check()
            found = {one.subject: one.templates for one in gallery.subjects()}
            assert set(found.values()) <= {PHOTOS}, f"round {turn}: somebody is half there"
            begun = {f"person {person}" for word, person in deeds if word == "enrolling"}
            going = {f"person {person}" for word, person in deeds if word == "forgetting"}
            kept = {f"person {person}" for word, person in deeds if word == "enrolled"} - going
            gone = {f"person {person}" for word, person in deeds if word == "forgotten"}
            assert kept <= set(found) <= begun, f"round {turn}: somebody is lost"
            assert not gone & set(found), f"round {turn}: somebody is back"
            content = b"".join(file.read_bytes() for file in root.glob("people.db*"))
            for person in sorted(going - set(found)):  # also where the kill came between deletion and wiping
                number = person.split()[1]
                assert code(f"p{number}/0").tobytes()[:16] not in content, f"round {turn}: traces of {person}"
            enrolled_in_all += len(found)
    return enrolled_in_all


def test_kill_9_leaves_all_of_a_person_or_nothing():
    with folder() as root:
        assert kill_and_look(Path(root), 10, 0) > 0


@pytest.mark.slow
def test_a_hundred_kills():
    with folder() as root:
        assert kill_and_look(Path(root), 100, 1) > 0


def mixed_operations(path, encoder, log, number, count):
    """Random reads and writes; each is logged with the revision that it made or saw."""
    rng = np.random.default_rng(number)
    lines = []
    with Gallery(path, encoder=encoder, timeout=300.0) as gallery:
        for turn in range(count):
            person = f"p{rng.integers(25)}"
            probe = f"p{rng.integers(30)}/{rng.integers(1000)}"
            action = rng.choice(
                ["enroll", "identify", "verify", "forget", "remove", "subjects", "show"],
                p=[0.3, 0.3, 0.15, 0.07, 0.08, 0.07, 0.03],
            )
            if action == "enroll":
                photos = [f"{person}/{number}-{turn}-{photo}" for photo in range(rng.integers(1, 4))]
                done = gallery.enroll(person, [*photos, "none"])
                assert done.rejected == (("none", "no face"),)
                lines.append(("enroll", done.revision, person, photos, done.accepted))
            elif action == "identify":
                (answer,) = gallery.identify(probe, top=3)
                found = [(c.subject, c.distance) for c in answer.candidates]
                lines.append(("identify", gallery.revision, probe, found, answer.searched, answer.subject))
            elif action == "verify":
                decision = gallery.verify(person, probe)
                lines.append(("verify", gallery.revision, person, probe, decision.distance))
            elif action == "subjects":
                found = [(one.subject, one.templates) for one in gallery.subjects()]
                lines.append(("subjects", gallery.revision, found))
            else:
                before = gallery._store.state().revision
                try:
                    if action == "forget":
                        receipt = gallery.forget(person)
                        lines.append(("forget", receipt.revision, person, receipt.templates))
                    elif action == "remove":
                        id = int(rng.integers(1, 400))
                        receipt = gallery.remove(id)
                        lines.append(("remove", receipt.revision, id))
                    else:
                        found = [record.id for record in gallery.show(person).templates]
                        lines.append(("show", before, gallery._store.state().revision, person, found))
                except SubjectNotFound:
                    lines.append(("nobody", before, gallery._store.state().revision, person))
                except TemplateNotFound:
                    lines.append(("no template", before, gallery._store.state().revision, id))
    Path(log).write_text(json.dumps(lines))


class Oracle:
    """What one process alone would have answered: every state of the gallery, from the writes in their order."""

    def __init__(self, writes):
        self.states = [{}]  # revision -> {id: (subject, source)}
        for write in sorted(writes, key=lambda write: write[1]):
            kind, revision, what = write[:3]
            assert revision == len(self.states), "two writes made one revision, or one is missing"
            state = dict(self.states[-1])
            if kind == "enroll":
                assert min(write[4]) > max(state, default=0)
                state |= {id: (what, source) for id, source in zip(write[4], write[3], strict=True)}
            elif kind == "forget":
                gone = [id for id, (subject, _) in state.items() if subject == what]
                assert len(gone) == write[3] > 0
                state = {id: value for id, value in state.items() if id not in gone}
            else:
                assert what in state
                del state[what]
            self.states.append(state)

    def nearest(self, revision, probe):
        best = {}
        state = self.states[revision]
        if state:
            codes = np.stack([code(source) for _, source in state.values()]).astype(float)
            distances = np.sum((codes - code(probe).astype(float)) ** 2, axis=1)
            for (subject, _), distance in zip(state.values(), distances, strict=True):
                best[subject] = min(float(distance), best.get(subject, 9.0))
        return best


def check_against_oracle(root, encoder, processes, count):
    path = root / "people.db"
    logs = [root / f"log{number}" for number in range(processes)]
    children = [
        FORK.Process(target=mixed_operations, args=(path, encoder, log, number, count))
        for number, log in enumerate(logs)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * processes
    lines = [line for log in logs for line in json.loads(log.read_text())]
    assert len(lines) == processes * count
    oracle = Oracle([line for line in lines if line[0] in ("enroll", "forget", "remove")])
    for line in lines:
        kind = line[0]
        if kind == "identify":
            _, revision, probe, found, searched, subject = line
            best = oracle.nearest(revision, probe)
            expected = sorted(best.items(), key=lambda item: (item[1], item[0]))[:3]
            assert searched == len(oracle.states[revision])
            assert [name for name, _ in found] == [name for name, _ in expected]
            np.testing.assert_allclose([d for _, d in found], [d for _, d in expected], atol=1e-10)
            if found:
                threshold = encoder.calibration.threshold_open_set(0.01, searched)
                assert subject == (found[0][0] if found[0][1] <= threshold else None)
        elif kind == "verify":
            _, revision, person, probe, distance = line
            expected = oracle.nearest(revision, probe).get(person)
            assert distance == (None if expected is None else pytest.approx(expected, abs=1e-10))
        elif kind == "subjects":
            names = sorted(subject for subject, _ in oracle.states[line[1]].values())
            assert line[2] == [[name, names.count(name)] for name in sorted(set(names))]
        elif kind in ("nobody", "no template", "show"):  # seen at one of the revisions between before and after
            _, before, after, what = line[:4]
            held = [
                sorted(id for id, (subject, _) in state.items() if what in (subject, id))
                for state in oracle.states[before : after + 1]
            ]
            assert (line[4] if kind == "show" else []) in held
    with Gallery(path, encoder=encoder) as gallery:
        gallery.check()
        kept = {row.id: (row.subject, row.origin) for row in gallery._store.rows()}
        assert kept == oracle.states[-1]
    return len(lines)


def test_four_processes_answer_like_one(encoder):
    with folder() as root:
        assert check_against_oracle(Path(root), encoder, 4, 30) == 120


@pytest.mark.slow
def test_eight_processes_and_500_operations_each(encoder):
    with folder() as root:
        assert check_against_oracle(Path(root), encoder, 8, 500) == 4000


def make_gallery(path, together, answers):
    together.wait()
    try:
        SqliteStore(path, timeout=60).close()
        answers.put(None)
    except Exception as error:
        answers.put(repr(error))


def test_processes_that_make_one_gallery_at_the_same_moment():
    """None of them takes the other's half-made file for somebody else's database."""
    for _ in range(25):
        with folder() as root:
            together, answers = FORK.Barrier(4), FORK.Queue()
            path = Path(root) / "people.db"
            children = [FORK.Process(target=make_gallery, args=(path, together, answers)) for _ in range(4)]
            for child in children:
                child.start()
            assert [answers.get(timeout=120) for _ in children] == [None] * 4
            for child in children:
                child.join()
