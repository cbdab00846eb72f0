"""The SQL of what goes on for a time: infusions, ventilation, dialysis, and fluids in and out.

What overlaps the window counts: it starts before the window ends, and goes on after the window begins or starts in it.
Of something that goes on beyond the end nothing but that is known: neither its end nor its amount.
"""

from patientdx.records.clinical_window.readings import HOUR

_EXACT = "TRY_CAST({} AS DECIMAL(18, 4))"
_OVERLAP = "e.starttime < s.window_end AND (e.starttime >= s.window_start OR e.endtime > s.window_start)"
_BEGIN = "greatest(e.starttime, s.window_start)"
_HOURS = f"(epoch_us(least(coalesce(e.endtime, e.starttime), s.window_end)) - epoch_us({_BEGIN})) / {HOUR}.0"
# Hours since the window began; what was running before then is at 0.
_AT = f"(epoch_us({_BEGIN}) - epoch_us(s.window_start)) / {HOUR}.0"
_STATES = """coalesce(bool_or(e.starttime <= s.window_start AND e.endtime > s.window_start), false),
        coalesce(bool_or(e.endtime >= s.window_end), false)"""
_SUM = f"sum({_EXACT.format(f'greatest({_HOURS}, 0)')})::DOUBLE"
_SPENT = f"least({_SUM}, any_value(epoch(s.window_end - s.window_start)) / 3600)"
# The rate in the concept's unit, if it can be converted and is possible. Without a unit it is taken to be in that one.
_RATED = """
    SELECT e.*, n.name, n.grp, n.weight AS clinical, n.unit,
        CASE WHEN r.rate BETWEEN 0 AND n.highest THEN r.rate END AS dose
    FROM inputevents e JOIN named n ON n.itemid = e.itemid AND n.kind = 'drug'
    LEFT JOIN rates c ON c.charted = lower(e.rateuom) AND c.becomes = n.unit,
    LATERAL (SELECT CASE WHEN n.unit = '' THEN NULL
        WHEN e.rateuom IS NULL OR lower(e.rateuom) = lower(n.unit) THEN e.rate
        WHEN c.by_weight THEN e.rate * c.factor / nullif(e.patientweight, 0) ELSE e.rate * c.factor END AS rate) r"""
_ORDER = "(e.starttime, e.dose, e.itemid)"


def drugs(bounds: str) -> str:
    """(stay_id, name, mean amount, count, first and last hour, then the fields of Infusion) by clinical weight.

    The mean amount is that of the doses given wholly inside the window.
    """
    inside = "e.starttime >= s.window_start AND e.endtime < s.window_end AND abs(e.amount) < 1e9"
    return f"""
    SELECT e.stay_id, e.name,
        sum({_EXACT.format("e.amount")}) FILTER ({inside})::DOUBLE / nullif(count(e.amount) FILTER ({inside}), 0),
        count(*), min({_AT}), max({_AT}), any_value(e.grp), max(e.clinical), any_value(e.unit),
        arg_min(e.dose, {_ORDER}) FILTER (e.dose IS NOT NULL), arg_max(e.dose, {_ORDER}) FILTER (e.dose IS NOT NULL),
        max(e.dose), {_STATES}, {_SPENT}
    FROM ({_RATED}) e JOIN batch s USING (stay_id) WHERE e.stay_id {bounds} AND {_OVERLAP}
    GROUP BY e.stay_id, e.name ORDER BY e.stay_id, max(e.clinical) DESC, count(*) DESC, e.name"""


def procedures(bounds: str) -> str:
    """(stay_id, name, count, first and last hour, then the fields of Period) by clinical weight."""
    return f"""
    SELECT e.stay_id, n.name, count(*), min({_AT}), max({_AT}), any_value(n.grp), max(n.weight), {_STATES}, {_SPENT}
    FROM procedureevents e JOIN batch s USING (stay_id) JOIN named n ON n.itemid = e.itemid AND n.kind = 'procedure'
    WHERE e.stay_id {bounds} AND {_OVERLAP}
    GROUP BY e.stay_id, n.name ORDER BY e.stay_id, max(n.weight) DESC, count(*) DESC, n.name"""


def fluid_in(bounds: str) -> str:
    """(stay_id, mL): a known rate times its hours in the window, or of what ended the amount's share in the window."""
    hourly = "e.rate * CASE lower(e.rateuom) WHEN 'ml/min' THEN 60 ELSE 1 END"
    share = f"""CASE WHEN e.endtime > e.starttime
        THEN ({_HOURS}) / ((epoch_us(e.endtime) - epoch_us(e.starttime)) / {HOUR}.0) ELSE 1 END"""
    volume = f"""CASE WHEN e.rate > 0 AND coalesce(lower(e.rateuom), 'ml/hour') IN ('ml/hour', 'ml/min')
            AND e.endtime > e.starttime
        THEN {hourly} * ({_HOURS})
        WHEN e.endtime < s.window_end AND coalesce(lower(e.amountuom), 'ml') IN ('ml', 'l')
        THEN e.amount * CASE lower(e.amountuom) WHEN 'l' THEN 1000 ELSE 1 END * {share} END"""
    return f"""
    WITH volumes AS (
        SELECT e.stay_id, {volume} AS volume, f.most
        FROM inputevents e JOIN batch s USING (stay_id)
        JOIN fluid_items f ON f.itemid = e.itemid AND f.direction = 'in'
        WHERE e.stay_id {bounds} AND {_OVERLAP})
    SELECT stay_id, sum({_EXACT.format("volume")})::DOUBLE FROM volumes WHERE volume BETWEEN 0 AND most
    GROUP BY stay_id ORDER BY stay_id"""


def fluid_out(bounds: str, direction: str, clock: str) -> str:
    """(stay_id, mL) of what came out; `direction` is out or urine. A row beyond its largest volume does not count."""
    return f"""
    SELECT e.stay_id, sum({_EXACT.format("e.value * f.sign")})::DOUBLE
    FROM outputevents e JOIN batch s USING (stay_id)
    JOIN fluid_items f ON f.itemid = e.itemid AND f.direction = '{direction}'
    WHERE e.stay_id {bounds} AND e.charttime >= s.window_start AND e.charttime < s.window_end
        AND {clock} < s.window_end AND e.value BETWEEN 0 AND f.most
    GROUP BY e.stay_id ORDER BY e.stay_id"""


def outputs(bounds: str) -> str:
    """(stay_id, name) of what came out, as d_items calls it, the most frequent first."""
    return f"""
    SELECT e.stay_id, d.label FROM outputevents e JOIN batch s USING (stay_id) JOIN d_items d USING (itemid)
    WHERE e.stay_id {bounds} AND e.charttime >= s.window_start AND e.charttime < s.window_end AND d.label IS NOT NULL
    GROUP BY e.stay_id, d.label ORDER BY e.stay_id, count(*) DESC, d.label"""
