"""Highest values that are kept, as in the pipeline of PatientDx's data: a percentile of each item."""

from collections.abc import Iterable

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import window
from patientdx.records.clinical_window import items


def limits(
    con: duckdb.DuckDBPyConnection,
    *,
    stays: Iterable[int] | None = None,
    percentile: int = 98,
    every_item: bool = False,
    revision: int = 1,
    all_hours: bool = False,
) -> dict[int, float]:
    """The percentile of each item's values in the window, by itemid, in the unit charted; for `window.stream`.

    Of n values in ascending order it is the one at floor(percentile / 100 * (n - 1)), counted from 0: what lies above
    it lies above numpy's interpolated percentile too. `stays` are the stay_ids of the table `cohort` to fit on, those
    of train; None takes the whole cohort, as the pipeline does, so that test values have a say in what is cut from
    train. `all_hours`: the values of the whole stay of every adult, also of those whom the cohort leaves out, which is
    what the pipeline does. Only what the window and the possible range of items.csv let through is counted.

    Raises UserError on a percentile that is no whole number from 1 to 100, and when no stay is left to fit on.
    """
    if not isinstance(percentile, int) or isinstance(percentile, bool) or not 1 <= percentile <= 100:
        raise UserError(f"percentile={percentile!r}: a whole number from 1 to 100 is needed.")
    if revision > 1 and not every_item:
        items.name_items(con)
    else:
        window.name_items(con, every_item=every_item)
    everyone = [row[0] for row in con.execute("SELECT stay_id FROM cohort ORDER BY stay_id").fetchall()]
    fitted = everyone if stays is None else sorted(set(stays) & set(everyone))
    if not fitted:
        raise UserError("Outlier limits need at least one stay of the cohort to be fitted on.")
    con.execute("CREATE OR REPLACE TEMP TABLE fitted AS SELECT unnest(?) AS stay_id", [fitted])
    read = _ALL_HOURS if all_hours else _IN_WINDOW
    # Counted by value first: readings are rounded, so there are few values, and no item's values need sorting at once.
    rows = con.execute(
        f"""
        WITH counted AS (
            SELECT c.itemid, c.valuenum AS value, count(*) AS times
            FROM {read} AND c.valuenum * r.scale + r.shift BETWEEN r.minimum AND r.maximum
            GROUP BY ALL),
        ranked AS (
            SELECT itemid, value, sum(times) OVER (PARTITION BY itemid ORDER BY value) AS up_to,
                sum(times) OVER (PARTITION BY itemid) AS total
            FROM counted)
        SELECT itemid, min(value) FROM ranked WHERE up_to > ? * (total - 1) // 100
        GROUP BY itemid ORDER BY itemid""",
        [percentile],
    ).fetchall()
    return dict(rows)


_IN_WINDOW = """chartevents c JOIN fitted USING (stay_id) JOIN cohort s USING (stay_id) JOIN read_items r USING (itemid)
            WHERE c.charttime >= s.window_start AND c.charttime < s.window_end"""
_ALL_HOURS = """chartevents c JOIN icustays s USING (stay_id) JOIN patients p ON p.subject_id = s.subject_id
            JOIN read_items r USING (itemid)
            WHERE p.anchor_age >= 18 AND c.charttime >= s.intime AND c.charttime < s.outtime"""
