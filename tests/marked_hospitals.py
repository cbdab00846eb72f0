"""A hospital with a mark in every text of every table, and ids that nothing else contains; and the search for both."""

import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

MARK = "zqvwx"  # followed by a number for each column, as in zqvwx07
SAME = {"icd_code": f"{MARK}00"}  # what tables are joined by has one mark in all
NAMES_A_TABLE = "linksto"  # no text of a hospital
IDS = ("subject_id", "hadm_id", "stay_id")
FIRST_ID = 918_273_000_000  # twelve digits, as none of the synthetic hospital's
DIGITS = re.compile(rb"(?=(918[,_ ]?\d{3}[,_ ]?\d{3}[,_ ]?\d{3}))")


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
