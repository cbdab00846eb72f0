"""The synthetic hospital on disk: generated tables in MIMIC-IV's layout, kept in the cache.

Everything in it is generated. A number measured on it shows that the code runs, and nothing about patients.
Only the item numbers and labels in items.csv are MIMIC-IV's own (open demo, ODbL 1.0).
"""

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.locks import locked
from patientdx.core.progress import progress
from patientdx.records.synthetic import bedside, coding, illness, laboratory, population, treatment
from patientdx.records.synthetic.tables import HOUR, Values

VERSION = 3  # raise it when a change makes other patients
MANIFEST = "synthetic_hospital.json"
ELIGIBLE_HOURS = 54
_BYTES_PER_STAY = 60_000  # generous, with either form and the shorter stays that come on top


def hospital(
    cache: Path,
    *,
    stays: int = 300,
    seed: int = 0,
    returns: float | None = None,
    case_mix: str = "general",
    form: str = "parquet",
    unread: float = 0,
) -> Path:
    """Folder with the synthetic hospital, written on first use.

    `stays` is the number of adult ICU stays of at least 54 hours, alive (reached to within a patient's stays); shorter
    stays, minors and step-down units come on top. `form` is parquet or csv.gz. The same numbers always make the same
    tables, and a larger hospital starts with the patients of a smaller one. Any size will do: patients are drawn and
    written in blocks, so that memory does not grow, and a block is a row group of its own in the order of patients.
    `returns`: about the share of later admissions that begin within 30 days of discharge, more after severe stays;
    None: they begin whenever they may, few so soon. `case_mix`: general, or another kind of hospital: referral (less
    surgery, more sepsis, heart and lung failure) or surgical (more planned surgery). `unread` chart
    rows an hour of items that nothing reads come on top, for load tests (MIMIC-IV charts some 50).

    Raises UserError when a parameter makes no sense or the disk has no room.
    """
    if not isinstance(stays, int) or isinstance(stays, bool) or stays < 1:
        raise UserError(f"task.synthetic.stays={stays!r}: a whole number of 1 or more is needed.")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"task.synthetic.seed={seed!r}: a whole number of 0 or more is needed.")
    if returns is not None and not (isinstance(returns, float) and 0 < returns < 1):
        raise UserError(f"task.synthetic.returns={returns!r}: a share between 0 and 1 is needed, or null.")
    if case_mix not in illness.MIXES:
        raise UserError(f"task.synthetic.case_mix={case_mix!r}: it is one of {', '.join(illness.MIXES)}.")
    if form not in ("parquet", "csv.gz"):
        raise UserError(f"synthetic hospital as {form!r}: tables can be written as parquet or csv.gz.")
    parameters = {"version": VERSION, "stays": stays, "seed": seed, "form": form} | (
        {"unread": unread} if unread else {}
    )
    parameters |= {} if returns is None else {"returns": returns}
    parameters |= {} if case_mix == "general" else {"case_mix": case_mix}
    name = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(cache) / "synthetic" / name
    if (folder / MANIFEST).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not (folder / MANIFEST).is_file():
                _write(folder, parameters)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"The synthetic hospital cannot be written to {folder.parent}: {reason}. "
            "Nothing was left behind. Free some space, or set cache=… (or PATIENTDX_CACHE) to a folder on "
            "another disk."
        ) from error
    return folder


def _write(folder: Path, parameters: dict) -> None:
    need, free = 2_000_000 + _BYTES_PER_STAY * parameters["stays"], shutil.disk_usage(folder.parent).free
    if free < need:
        raise UserError(
            f"The synthetic hospital of {parameters['stays']} stays needs up to {need / 1e6:.0f} MB "
            f"in {folder.parent}, and {free / 1e6:.0f} MB are free. "
            "Free some space, or set cache=… (or PATIENTDX_CACHE) to a folder on another disk."
        )
    for orphan in folder.parent.glob(f"{folder.name}.*/"):  # of a process that was killed: the caller holds the lock
        shutil.rmtree(orphan, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        hashes = _tables(temporary, parameters)
        manifest = {"synthetic": True, "parameters": parameters, "sha256": hashes}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        if folder.exists():  # a folder without its manifest was never finished
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tables(folder: Path, parameters: dict) -> dict[str, str]:
    """Write all tables, block by block so that memory stays the same for any size; sha256 of each file."""
    writers: dict[str, _Writer] = {}
    missing, number = parameters["stays"], 0
    bar = progress(total=missing, desc="synthetic hospital", unit="stay", delay=2)
    try:
        while missing > 0:
            stays, tables = _block(number, parameters)
            end = np.where(stays["died"], stays["deathtime"], stays["outtime"])
            hours = (end - stays["intime"]) / HOUR
            eligible = np.cumsum((stays["age"] >= 18) & ~stays["stepdown"] & (hours >= ELIGIBLE_HOURS))
            enough = min(int(np.searchsorted(eligible, missing)), len(eligible) - 1)
            last = int(stays["subject_id"][enough]) if eligible[-1] >= missing else None
            for name, table in (tables | ({} if number else _dictionaries())).items():
                if last is not None and "subject_id" in table.column_names:
                    table = table.filter(pa.array(table["subject_id"].to_numpy() <= last))
                if name not in writers:
                    writers[name] = _Writer(folder / f"{name}.{parameters['form']}", table.schema)
                writers[name].write(table)
            bar.update(min(missing, int(eligible[-1])))
            missing, number = missing - int(eligible[-1]), number + 1
    finally:
        bar.close()
        for writer in writers.values():
            writer.close()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _block(number: int, parameters: dict) -> tuple[dict[str, np.ndarray], dict[str, pa.Table]]:
    """The stays of a block of patients, and its part of every table, in the order of patients."""
    seed, unread = parameters["seed"], parameters.get("unread", 0)

    def generator(stream: int) -> np.random.Generator:
        return np.random.default_rng([seed, number, stream])

    mix = parameters.get("case_mix", "general")
    stays, tables = population.block(seed, number, parameters.get("returns"), mix)
    values = Values()
    tables["hosp/labevents"] = laboratory.draw(generator(2), stays, values)
    tables["icu/chartevents"] = bedside.chart(generator(3), stays, values)
    tables["icu/inputevents"] = treatment.inputs(generator(4), stays)
    tables["icu/procedureevents"] = treatment.procedures(generator(5), stays)
    tables["icu/outputevents"] = treatment.outputs(generator(6), stays)
    tables["hosp/diagnoses_icd"] = coding.diagnoses(generator(7), stays)
    if unread:
        more = [tables["icu/chartevents"], bedside.unread(generator(8), stays, unread)]
        tables["icu/chartevents"] = pa.concat_tables(more).sort_by(
            [("subject_id", "ascending"), ("hadm_id", "ascending")]
        )
    return stays, tables


def _dictionaries() -> dict[str, pa.Table]:
    text = (resources.files("patientdx.records.synthetic") / "items.csv").read_bytes()
    items = pyarrow.csv.read_csv(pa.BufferReader(text))
    return {"icu/d_items": items, "hosp/d_icd_diagnoses": population.dictionary()}


class _Writer:
    """Appends tables to one parquet or csv.gz file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".parquet":
            self._stream, self._sink = None, pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")
        else:
            # Level 1: packing tighter would take most of the time. Without name and date it is always the same bytes.
            self._file = pa.OSFile(str(path), "wb")
            self._stream = gzip.GzipFile("", "wb", 1, self._file, mtime=0)
            self._sink = pyarrow.csv.CSVWriter(self._stream, schema)

    def write(self, table: pa.Table) -> None:
        self._sink.write_table(table)

    def close(self) -> None:
        self._sink.close()
        if self._stream is not None:
            self._stream.close()
            self._file.close()
