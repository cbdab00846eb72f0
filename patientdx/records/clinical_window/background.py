"""The SQL of where a patient came from: admission, service, and conditions coded at earlier admissions."""

# A surgical service is one that is named so (mimic-code, oasis): the last one known, up to a day into the stay.
_SURGICAL = "regexp_matches(upper(v.curr_service), 'SURG|ORTHO')"
PEOPLE = f"""
    WITH service AS (
        SELECT s.stay_id, arg_max({_SURGICAL}, (v.transfertime, v.curr_service)) AS surgical
        FROM batch s JOIN services v USING (hadm_id)
        WHERE v.transfertime < s.window_end AND v.transfertime <= s.intime + to_hours(24) GROUP BY s.stay_id)
    SELECT stay_id, least(age, 90), gender, race, insurance, admission_type, admission_location, first_careunit,
        epoch(intime - admittime) / 3600,
        coalesce(surgical, CASE WHEN admission_type = 'SURGICAL SAME DAY ADMISSION' THEN true END),
        window_start > intime
    FROM batch LEFT JOIN service USING (stay_id) ORDER BY stay_id"""
# Codes of other admissions that were over when this ICU stay began, as window.stream(diagnoses="prior") takes them.
COMORBIDITIES = """
    WITH earlier AS (
        SELECT s.stay_id, a.hadm_id FROM batch s JOIN admissions a USING (subject_id)
        WHERE a.hadm_id <> s.hadm_id AND a.dischtime <= s.intime),
    codes AS (
        SELECT e.stay_id, d.icd_version AS version, trim(d.icd_code) AS code
        FROM earlier e JOIN diagnoses_icd d USING (hadm_id)),
    prefixes AS (
        SELECT stay_id, version, substr(code, 1, length) AS prefix FROM codes, unnest([3, 4, 5]) AS l(length))
    SELECT stay_id, c.name FROM prefixes JOIN charlson c USING (version, prefix)
    GROUP BY stay_id, c.name ORDER BY stay_id, min(c.number)"""
