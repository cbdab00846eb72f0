"""The concept table as tables of a DuckDB connection, for the queries of a window."""

from collections.abc import Mapping

import duckdb

from patientdx.records import concept_table

VERBAL, EYE, MOTOR, COMA = "GCS verbal", "GCS eye", "GCS motor", "Glasgow coma scale"
OXYGEN, PRESSURE, RATIO = "Inspired oxygen", "Arterial PO2", "PaO2/FiO2 ratio"
WEIGHT, HEIGHT, BODY_MASS = "Weight", "Height", "Body mass index"
VENTILATED = "Invasive ventilation"
_NAMED = {
    "itemid": "INTEGER", "kind": "VARCHAR", "name": "VARCHAR", "grp": "VARCHAR", "weight": "INTEGER", "unit": "VARCHAR",
    "highest": "DOUBLE",
}  # fmt: skip
_READ = {
    "itemid": "INTEGER", "line": "INTEGER", "place": "INTEGER", "scale": "DOUBLE", "shift": "DOUBLE",
    "minimum": "DOUBLE", "maximum": "DOUBLE", "most": "DOUBLE", "again": "BOOLEAN", "only": "BOOLEAN",
}  # fmt: skip


def name_items(con: duckdb.DuckDBPyConnection, limits: Mapping[int, float] | None = None) -> None:
    """Make `read_items`, `lab_items`, `concept_lines`, `word_items`, `named`, `rates`, `fluid_items`, `charlson`.

    `limits` maps an itemid of chartevents to the highest value kept, in the unit charted.
    """
    dictionary = con.execute(
        "SELECT itemid, label, category, linksto FROM d_items WHERE label IS NOT NULL ORDER BY itemid"
    ).fetchall()
    of = {link: [row[:3] for row in dictionary if row[3] == link] for link in {row[3] for row in dictionary}}
    _readings(con, limits or {})
    words = [(int(row["itemid"]), row["name"], int(row["weight"])) for row in concept_table.rows("texts.csv")]
    columns = {"itemid": "INTEGER", "name": "VARCHAR", "weight": "INTEGER"}
    table(con, "word_items", columns, words)
    named = [
        (itemid, kind, i.name, i.group, i.weight, i.unit, i.maximum)
        for kind, link in (("drug", "inputevents"), ("procedure", "procedureevents"))
        for itemid, i in concept_table.interventions(kind, of.get(link, ())).items()
    ]
    table(con, "named", _NAMED, named)
    rates = [
        (row["unit"].lower(), row["becomes"], float(row["factor"]), row["by_weight"] == "yes")
        for row in concept_table.rows("rates.csv")
    ]
    columns = {"charted": "VARCHAR", "becomes": "VARCHAR", "factor": "DOUBLE", "by_weight": "BOOLEAN"}
    table(con, "rates", columns, rates)
    fluids = [
        (itemid, direction, sign, most)
        for direction, link in (("in", "inputevents"), ("out", "outputevents"), ("urine", "outputevents"))
        for itemid, (sign, most) in concept_table.fluids(direction, of.get(link, ())).items()
    ]
    columns = {"itemid": "INTEGER", "direction": "VARCHAR", "sign": "INTEGER", "most": "DOUBLE"}
    table(con, "fluid_items", columns, fluids)
    codes = [
        (row["name"], number, int(row["icd_version"]), row["starts_with"])
        for number, row in enumerate(concept_table.rows("comorbidities.csv"))
    ]
    columns = {"name": "VARCHAR", "number": "INTEGER", "version": "INTEGER", "prefix": "VARCHAR"}
    table(con, "charlson", columns, codes)


def _readings(con: duckdb.DuckDBPyConnection, limits: Mapping[int, float]) -> None:
    """`place` orders the items of a reading; `again` marks further scales of one item. Names are lines of the table."""
    known = concept_table.concepts()
    line = {name: number for number, name in enumerate(known)}
    table(con, "concept_lines", {"name": "VARCHAR", "line": "INTEGER"}, list(line.items()))
    charted = {source.name for source in concept_table.sources() if source.table == "chartevents"}
    seen: set[int] = set()
    rows: dict[str, list[tuple]] = {"chartevents": [], "labevents": []}
    for rank, source in enumerate(concept_table.sources()):
        concept = known[source.name]
        most = limits.get(source.itemid, float("inf")) if source.table == "chartevents" else float("inf")
        row = (
            source.itemid, line[source.name], rank, source.scale, source.offset, concept.minimum, concept.maximum,
            most, source.itemid in seen, source.name not in charted,
        )  # fmt: skip
        rows[source.table].append(row)
        seen.add(source.itemid)
    table(con, "read_items", _READ, rows["chartevents"])
    table(con, "lab_items", _READ, rows["labevents"])


def table(con: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str], rows: list[tuple]) -> None:
    """A temporary table of these rows, replacing an earlier one; `columns` maps names to DuckDB types."""
    lists = [list(column) for column in zip(*rows, strict=True)] if rows else [[None]] * len(columns)
    chosen = ", ".join(f"unnest(CAST(? AS {kind}[])) AS {column}" for column, kind in columns.items())
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {chosen}{'' if rows else ' LIMIT 0'}", lists)
