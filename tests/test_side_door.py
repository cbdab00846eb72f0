"""Nothing of a patient leaves by the side door.

A hospital that is not known to be open has a mark in every text of every table, and ids that nothing else contains.
Runs that do all that they can, and runs that fail, may leave marks in the cache folder and nowhere else.
"""

import gzip
import io
import json
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
from command_line import forked, small, the_one, tiny
from own_files import notes, write
from own_hospitals import Hospital, concepts, long
from own_hospitals import hospital as hospital_of_its_own
from tasks_by_yaml import load

from patientdx.cli import certify
from patientdx.records.synthetic.hospital import hospital

MARK = "zqvwx"  # followed by a number for each column, as in zqvwx07
SAME = {"icd_code": f"{MARK}00"}  # what tables are joined by has one mark in all
NAMES_A_TABLE = "linksto"  # no text of a hospital
IDS = ("subject_id", "hadm_id", "stay_id")
ASKED = "task.question='Does the patient die? Answer with yes or no.'"
FIRST_ID = 918_273_000_000  # twelve digits, as none of the synthetic hospital's
DIGITS = re.compile(rb"(?=(918[,_ ]?\d{3}[,_ ]?\d{3}[,_ ]?\d{3}))")


class House(NamedTuple):
    """What processes see: their own home, folder for temporary files and working folder, all watched; and the cache."""

    watched: Path
    cache: Path
    work: Path


def marked(table: pa.Table, name: str, marks: dict[str, str]) -> pa.Table:
    """The table with a mark of its own at the end of every text of each column, and with other ids."""
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if field.name != NAMES_A_TABLE and pa.types.is_string(field.type):
            mark = SAME.get(field.name, f"{MARK}{len(marks) + 1:02d}")
            marks[f"{name}.{field.name}"] = mark
            column = pc.binary_join_element_wise(column.cast(pa.string()), mark, " ")
        elif field.name in IDS:
            column = pc.add(column.cast(pa.int64()), FIRST_ID)
        table = table.set_column(place, field.name, column)
    return table


def build(source: Path, folder: Path, **bad: list[str]) -> dict[str, str]:
    """A marked copy of a hospital; `bad` columns of chartevents become text. Returns the marks by table and column."""
    marks: dict[str, str] = {}
    for file in sorted(source.rglob("*.parquet")):
        name = file.relative_to(source).with_suffix("").as_posix()
        table = marked(pyarrow.parquet.read_table(file), name, marks)
        for column in bad if name == "icu/chartevents" else ():
            values = pc.binary_join_element_wise(table[column].cast(pa.string()), f"{MARK}99", " ")
            table = table.set_column(table.column_names.index(column), column, values)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    return marks


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
        patch.setenv("PATIENTDX_CACHE", str(found.cache))
        found.work.mkdir()
        yield found


@pytest.fixture(scope="module")
def talkative(tiny_base, tmp_path_factory) -> Path:
    """A base whose chat template fails and quotes what it was given, as templates of public models do."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("talkative") / "base")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no place for ' + messages[0]['content']) }}")
    return folder


EVERY = ("task.template=paper", "task.diagnoses=discharge", "hydra.verbose=true")
TUNED = ("finetune=lora", "finetune.examples=8", "finetune.steps=2", "finetune.pilot_examples=4")
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
    "stays",
)  # the runs that come to their end


@pytest.fixture(scope="module")
def left(house, roots, own_notes, own_stays, talkative, tiny_base, tiny_pivot) -> dict[str, bytes]:
    """What all runs left outside the cache, by file, and what they said; unpacked."""
    whole, damaged = roots
    plain = [one for one in small(tiny_base, tiny_pivot, *EVERY) if not one.startswith(("tracking", "splits"))]
    of_whole = [*plain, f"task.mimic_root={whole}"]
    scored = [one for one in of_whole if not one.startswith(("baselines", "clinical"))]
    bad_base = [f"base_model.source={talkative}", f"pivot_model.source={talkative}"]
    merged = house.work / "merged"
    of_notes = [*tiny(tiny_base, tiny_pivot), *own_notes, "splits=[pilot,test]"]
    of_notes = [word for word in of_notes if not word.startswith(("tracking", "splits=[test]"))]
    runs = {
        "everything": [
            *scored,
            "name=full",
            "prompt_variants=true",
            "splits=[pilot,test]",
            f"save={merged}",
            "lambda=0.4",
        ],
        "sweep": ["-m", *of_whole, "name=sweep", "lambda=0.2,0.6", "parents=false", "tracking=none"],
        "search": [
            *of_whole,
            "name=search",
            "search=private",
            "search.points=[0.2,0.8]",
            "parents=false",
            "tracking=none",
        ],
        "fine-tuning with attacks": [*of_whole, *TUNED, *ATTACKED, "name=tuned"],
        "notes": [*of_notes, *TUNED, "privacy=all", "name=notes", "task.features=[lactate]", "prompt_variants=false"],
        "a sweep over notes": ["-m", *of_notes, "name=notes_sweep", "lambda=0.2,0.6", "search=fixed"],
        "stays": [*of_notes[:-4], *own_stays, "splits=[pilot,test]", "name=stays"],
        "notes with a text for a feature": [*of_notes, "name=notes_bad", "task.features=[ward]"],
        "notes with a text for a label": [*of_notes, "name=notes_bad", "task.label_column=text"],
        "fine-tuning that fails": [*of_whole, *TUNED, "name=torn", "finetune.learning_rate=1e38", "tracking=none"],
        "text for a number": [*plain, f"task.mimic_root={damaged}", "name=damaged"],
        "a template that quotes": [*of_whole, *bad_base, "name=quoted"],
        "a sweep that fails": ["-m", *of_whole, *bad_base, "name=quoted_sweep", "lambda=0.2,0.6"],
        "a crash while scoring": [*of_whole, "name=crashed", "lambda=0.9", "parents=false"],
    }
    errors = [{"kind": "score", "at": 1, "error": "key"} if "crash" in name else None for name in runs]
    done = forked(house.work, list(runs.values()), errors=errors, pictures=True)
    for name, one in zip(runs, done, strict=True):
        assert (one.returncode == 0) == (name in WHOLE), (name, one.stderr)
    study = the_one(house.work, "outputs/full/mortality_*")
    words = io.StringIO()
    with redirect_stdout(words), redirect_stderr(words):
        assert certify.main([str(merged), "--study", str(study)]) == 0, words.getvalue()
    said = {f"what {name} said": (one.stdout + one.stderr).encode() for name, one in zip(runs, done, strict=True)}
    said["what the certificate said"] = words.getvalue().encode()
    assert b"KeyError" in said["what a crash while scoring said"]
    assert b"TemplateError" in said["what a template that quotes said"]
    assert b"valuenum" in said["what text for a number said"]
    assert b"learning_rate" in said["what fine-tuning that fails said"]
    return said | dict(unpacked(house.watched))


def unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of a folder, with its name; tables and archives also as what is in them."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        content = path.read_bytes() if path.is_file() else b""
        yield name, name.encode() + b"\n" + content
        if path.suffix == ".parquet":
            yield f"{name} as a table", json.dumps(pyarrow.parquet.read_table(path).to_pydict(), default=str).encode()
        if content[:2] == b"\x1f\x8b":
            yield f"{name} unpacked", gzip.decompress(content)
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                yield f"{name} unpacked", b"\n".join(archive.read(one) for one in archive.namelist())


def with_mark(left: dict[str, bytes]) -> dict[str, str]:
    """Where a mark is, and what stands around it."""
    found = {}
    for name, content in left.items():
        hit = re.search(MARK.encode(), content, re.IGNORECASE)
        if hit:
            found[name] = content[max(0, hit.start() - 100) : hit.end() + 40].decode(errors="replace")
    return found


def with_id(left: dict[str, bytes], ids: set[int]) -> dict[str, list[int]]:
    """Where ids are, and which: in digits, with thousands set apart or not, or as eight bytes."""
    ends = b"|".join(sorted({re.escape(struct.pack("<q", one)[3:]) for one in ids}))
    packed = re.compile(rb"(?=(.{3}(?:" + ends + rb")))", re.DOTALL)
    found = {}
    for name, content in left.items():
        seen = {int(re.sub(rb"\D", b"", hit[1])) for hit in DIGITS.finditer(content)}
        seen |= {struct.unpack("<q", hit[1])[0] for hit in packed.finditer(content)}
        if seen & ids:
            found[name] = sorted(seen & ids)[:3]
    return found


def test_no_text_of_a_patient_is_left_outside_the_cache(left):
    assert with_mark(left) == {}


def test_no_id_is_left_outside_the_cache(left, ids):
    assert with_id(left, ids) == {}


def test_the_runs_left_what_they_could(left):
    names = "\n".join(left)
    for one in ("run.log", "config.yaml", "provenance.json", "clinical.json", "metrics.json", "search.json",
                "privacy.json", "finetune.json", "finetune_loss.png",
                "predictions.parquet as a table", ".wandb", "sweep.csv", "merged/README.md", "merged/certificate.html",
                "scores/"):  # fmt: skip
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
