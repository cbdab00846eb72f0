"""Nothing of a patient leaves by the side door.

A hospital that is not known to be open has a mark in every text of every table, and ids that nothing else contains.
Runs that do all that they can, and runs that fail, may leave marks in the cache folder and nowhere else.
"""

import gzip
import io
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
import pytest
from command_line import forked, small, the_one, tiny
from marked_hospitals import FIRST_ID, IDS, MARK, build, unpacked, with_id, with_mark
from own_files import notes, write
from own_hospitals import Hospital, concepts, long
from own_hospitals import hospital as hospital_of_its_own
from tasks_by_yaml import load

from patientdx.cli import certify, checklist
from patientdx.records.synthetic.hospital import hospital

ASKED = "task.question='Does the patient die? Answer with yes or no.'"


class House(NamedTuple):
    """What processes see: their own home, folder for temporary files and working folder, all watched; and the cache."""

    watched: Path
    cache: Path
    work: Path


@pytest.fixture(scope="module")
def roots(session_cache, tmp_path_factory) -> tuple[Path, Path]:
    """The marked hospital, and the same with text where numbers belong."""
    source, place = hospital(session_cache, stays=60), tmp_path_factory.mktemp("hospitals")
    marks = build(source, place / "whole")
    assert {"icu/d_items.label", "hosp/d_icd_diagnoses.long_title", "hosp/admissions.race"} <= set(marks)
    build(source, place / "damaged", valuenum=[])
    return place / "whole", place / "damaged"


@pytest.fixture(scope="module")
def own_notes(roots, ids) -> list[str]:
    """The words of a run on texts of a hospital's own, with marks and the ids of the marked hospital."""
    people, rows = sorted(ids), notes(patients=60)
    for i, row in enumerate(rows):
        row |= {"text": f"{row['text']} {MARK}97", "ward": f"{MARK}98", "patient_id": people[i // 2]}
    path = write(roots[0].parent / "notes.csv", rows)
    elsewhere = [row | {"text": f"{row['text']} Site B.", "patient_id": -row["patient_id"]} for row in rows[:60]]
    write(roots[0].parent / "site_b.csv", elsewhere)
    trained = [row | {"member": i % 4 // 2} for i, row in enumerate(rows[:40])]
    write(roots[0].parent / "parent.csv", trained)
    return ["task=yes_no", f"task.path={path}", ASKED]


@pytest.fixture(scope="module")
def own_stays(roots, ids) -> list[str]:
    """The same of stays in a long table, with marks in what is told of a patient and in codes that nothing reads."""
    people, house, folder = sorted(ids), hospital_of_its_own(), roots[0].parent / "stays"
    of = {row["stay_id"]: people[i] for i, row in enumerate(house.stays)}
    for row in house.stays:
        row |= {"stay_id": of[row["stay_id"]], "subject_id": of[row["stay_id"]], "sex": f"{MARK}95"}
    values = [(of[stay], *rest) for stay, *rest in house.values]
    labels, records = long(folder, Hospital(house.stays, values))
    with records.open("a", newline="") as file:
        file.write(f"{values[0][0]},3,{MARK}96,1\r\n{values[0][0]},4,LOCAL//HR,{MARK}94\r\n")
    words = {"layout": "long", "path": labels, "records": records, "concepts": concepts(folder / "concepts.csv")}
    return [
        "task=labelled_stays",
        ASKED,
        "task.static=[age,sex]",
        *(f"task.{key}={word}" for key, word in words.items()),
    ]


@pytest.fixture(scope="module")
def ids(roots) -> set[int]:
    """Every patient, admission and stay of the marked hospital."""
    found: set[int] = set()
    for file in roots[0].rglob("*.parquet"):
        table = pyarrow.parquet.read_table(file)
        found |= {
            one for name in IDS if name in table.column_names for one in table[name].to_pylist() if one is not None
        }
    assert len(found) > 200
    assert min(found) > FIRST_ID
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    watched = tmp_path_factory.mktemp("watched")
    found = House(watched, tmp_path_factory.mktemp("house_cache"), watched / "work")
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home/cache", "XDG_CONFIG_HOME": "home/config"}
    with pytest.MonkeyPatch.context() as patch:
        for name, place in places.items():
            (watched / place).mkdir(exist_ok=True)
            patch.setenv(name, str(watched / place))
        patch.setenv("PATIENTDX_LEDGER", str(watched / "home/ledger.jsonl"))
        patch.setenv("HYDRA_FULL_ERROR", "1")  # for messages that quote records, on a terminal; there is none
        patch.setenv("PATIENTDX_CACHE", str(found.cache))
        found.work.mkdir()
        found.cache.mkdir(exist_ok=True)
        (found.cache / "id_secret").write_text("11" * 32)  # the same splits in every session
        yield found


@pytest.fixture(scope="module")
def talkative(tiny_base, tmp_path_factory) -> Path:
    """A base whose chat template fails and quotes what it was given, as templates of public models do."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("talkative") / "base")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no place for ' + messages[0]['content']) }}")
    return folder


EVERY = ("task.template=paper", "task.diagnoses=discharge", "hydra.verbose=true")
TUNED = ("finetune=lora", "finetune.examples=15", "finetune.steps=2", "finetune.pilot_examples=4")
ATTACKED = (
    *("privacy=all", "privacy.canaries=[1]", "privacy.canaries_each=1", "privacy.candidates=3", "privacy.recall=0"),
    *("privacy.extraction=2", "privacy.neighbours=1"),
)


WHOLE = (
    "everything",
    "sweep",
    "search",
    "fine-tuning with attacks",
    "notes",
    "a sweep over notes",
    "a private search over notes",
    "a private search over stays",
    "notes of two hospitals",
    "stays",
)  # the runs that come to their end


@pytest.fixture(scope="module")
def of_tables(house, roots, talkative, make_tiny) -> dict[str, list[str]]:
    """By name the words of the runs on the marked hospital."""
    whole, damaged = roots
    # Every item of the hospital is in a text, and the attacks take whole records.
    tiny_base, tiny_pivot = (make_tiny(**more, max_position_embeddings=4096) for more in ({}, {"noise_seed": 1}))
    plain = [one for one in small(tiny_base, tiny_pivot, *EVERY) if not one.startswith(("tracking", "splits"))]
    of_whole = [*plain, f"task.mimic_root={whole}"]
    scored = [one for one in of_whole if not one.startswith(("baselines", "clinical"))]
    quoting = [*of_whole, f"base_model.source={talkative}", f"pivot_model.source={talkative}"]
    torn = [*of_whole, *TUNED, "finetune.learning_rate=1e38"]  # after the check that comes before jobs are sent
    full = f"name=full prompt_variants=true splits=[pilot,test] save={house.work / 'merged'} lambda=0.4"
    private = "name=search search=private search.points=[0.2,0.8] parents=false tracking=none"
    workers = "name=torn_joblib lambda=0.6 hydra/launcher=joblib hydra.launcher.n_jobs=2"
    jobs = "name=torn_submitit lambda=0.6 hydra/launcher=submitit_local"
    return {
        "everything": [*scored, *full.split()],
        "sweep": ["-m", *of_whole, "name=sweep", "lambda=0.2,0.6", "parents=false", "tracking=none"],
        "search": [*of_whole, *private.split()],
        "fine-tuning with attacks": [*of_whole, *TUNED, *ATTACKED, "name=tuned"],
        "fine-tuning that fails": [*of_whole, *TUNED, "name=torn", "finetune.learning_rate=1e38", "tracking=none"],
        "text for a number": [*plain, f"task.mimic_root={damaged}", "name=damaged"],
        "a template that quotes": [*quoting, "name=quoted"],
        "a sweep that fails": ["-m", *quoting, "name=quoted_sweep", "lambda=0.2,0.6"],
        "a sweep that fails in workers": ["-m", *torn, *workers.split()],
        "a sweep that fails in jobs": ["-m", *torn, *jobs.split()],
        "a crash while scoring": [*of_whole, "name=crashed", "lambda=0.9", "parents=false"],
    }


@pytest.fixture(scope="module")
def of_files(roots, own_notes, own_stays, tiny_base, tiny_pivot) -> dict[str, list[str]]:
    """By name the words of the runs on files of a hospital's own."""
    folder = roots[0].parent
    asked = [*tiny(tiny_base, tiny_pivot), *own_notes]
    asked = [word for word in asked if not word.startswith(("tracking", "splits"))]
    of_notes = [*asked, "splits=[pilot,test]"]
    of_stays = [word for word in asked if word not in own_notes]
    attacked = f"privacy=all privacy.parent_file={folder / 'parent.csv'} name=notes task.features=[lactate]"
    private = "splits=[test] search=private search.hospital=ours search.points=[0.2,0.8] parents=false"
    external = (
        f"task.external={{path:{folder / 'site_b.csv'}}} splits=[pilot,test,external] name=notes_external "
        "thresholds.target_sensitivity=0.8 subgroups.min_rows=5 subgroups.min_events=1"
    )
    return {
        "notes": [*of_notes, *TUNED, *attacked.split(), "prompt_variants=false"],
        "a sweep over notes": ["-m", *of_notes, "name=notes_sweep", "lambda=0.2,0.6", "search=fixed"],
        "a private search over notes": [*asked, *private.split(), "name=notes_private"],
        "a private search over stays": [*of_stays, *own_stays, *private.split(), "name=stays_private"],
        "notes of two hospitals": [*asked, *external.split()],
        "stays": [*of_stays, *own_stays, "splits=[pilot,test]", "name=stays"],
        "notes with a text for a feature": [*of_notes, "name=notes_bad", "task.features=[ward]"],
        "notes with a text for a label": [*of_notes, "name=notes_bad", "task.label_column=text"],
    }


@pytest.fixture(scope="module")
def left(house, of_tables, of_files) -> dict[str, bytes]:
    """What all runs left outside the cache, by file, and what they said; unpacked."""
    runs = of_tables | of_files
    errors = [{"kind": "score", "at": 1, "error": "key"} if "crash" in name else None for name in runs]
    done = forked(house.work, list(of_tables.values()), errors=errors[: len(of_tables)], pictures=True)
    done += forked(house.work, list(of_files.values()), pictures=True)
    for name, one in zip(runs, done, strict=True):
        assert (one.returncode == 0) == (name in WHOLE), (name, one.stderr)
    study = the_one(house.work, "outputs/full/mortality_*")
    words = io.StringIO()
    with redirect_stdout(words), redirect_stderr(words):
        assert certify.main([str(house.work / "merged"), "--study", str(study)]) == 0, words.getvalue()
        for folder in (study, the_one(house.work, "outputs/notes_external/yes_no_*")):
            for form in checklist.FORMATS:
                assert checklist.main([str(folder), "--format", form]) == 0, words.getvalue()
    said = {f"what {name} said": (one.stdout + one.stderr).encode() for name, one in zip(runs, done, strict=True)}
    said["what certificate and checklists said"] = words.getvalue().encode()
    assert b"KeyError" in said["what a crash while scoring said"]
    assert b"TemplateError" in said["what a template that quotes said"]
    assert b"valuenum" in said["what text for a number said"]
    assert b"learning_rate" in said["what fine-tuning that fails said"]
    return said | dict(unpacked(house.watched))


def test_no_text_of_a_patient_is_left_outside_the_cache(left):
    assert with_mark(left) == {}


def test_no_id_is_left_outside_the_cache(left, ids):
    assert with_id(left, ids) == {}


def test_the_runs_left_what_they_could(left):
    names = "\n".join(left)
    for one in ("run.log", "config.yaml", "provenance.json", "clinical.json", "metrics.json", "search.json",
                "privacy.json", "finetune.json", "finetune_loss.png",
                "predictions.parquet as a table", ".wandb", "external.json", "ledger.jsonl", "_log.err", "sweep.csv",
                "merged/README.md", "merged/certificate.html", "scores/"):  # fmt: skip
        assert one in names, one


def test_the_search_does_find(house, roots, ids):
    """The prompts hold marks, and their examples ids; what is planted is found in every form."""
    whole, _ = roots
    data = load(
        "mortality", cache=house.cache, mimic_root=str(whole), template="paper", diagnoses="discharge", threads=1
    )
    assert data.open_data is False
    told = " ".join(example.context for example in data.examples)
    assert len(set(re.findall(rf"{MARK}\d\d", told))) >= 4  # labels of items, titles of diagnoses, race, insurance
    own = {int(one) for example in data.examples for one in (example.uid, example.subject)}
    assert own <= ids
    tables = dict(unpacked(whole))
    assert {"hosp/patients.parquet as a table", "icu/d_items.parquet as a table"} <= with_mark(tables).keys() | with_id(
        tables, ids
    ).keys()
    some = min(own)
    for content in (f"x {MARK.upper()}07 y", f"{some}", f"stay {some:,}.", f"[{some:_}]"):
        assert with_mark({"": content.encode()}) or with_id({"": content.encode()}, ids), content
    assert with_id({"x": struct.pack("<3q", 1, max(own), 2)}, ids) == {"x": [max(own)]}
    assert with_id({"x": struct.pack("<q", some ^ 1 << 30), "y": f"{some}"[:-1].encode()}, ids) == {}
    file = house.watched / "planted.gz"
    file.write_bytes(gzip.compress(f"a {MARK}07".encode()))
    seen = with_mark(dict(unpacked(house.watched)))
    file.unlink()
    assert "planted.gz unpacked" in seen
