"""What revision 2 of the records reads of one patient, event by event; the same from tables and from MEDS."""

from pathlib import Path

import pytest
from meds_hospital import write_meds
from small_ward import ADMISSION, EARLIER, LATER, STAY, chart, infusion, lab, output, procedure, write_ward

from patientdx.records import cohort, features, templates, window
from patientdx.records.clinical_window import Counts
from patientdx.records.cohort import Outcome
from patientdx.records.record import Record
from patientdx.records.source import SourceConfig, opened_source

HEART = chart(1, 220045, 90)


def read(
    root: Path,
    source: str = "mimic",
    *,
    beside: tuple[Path, ...] = (),
    hours: int = 48,
    predict_at: str = "admission",
    **settings,
) -> Record:
    """The record of the one stay."""
    clock = settings.get("clock", "charttime")
    needed = window.needed("none", cohort.NEEDED, revision=2, clock=clock)
    config = SourceConfig(
        cache=root.parent / "cache", source=source, mimic_root=[str(folder) for folder in (root, *beside)]
    )
    with opened_source(config, needed) as opened:
        cohort.select(opened.con, Outcome("false", predict_at=predict_at), window_hours=hours, gap_hours=0)
        return window.records(opened.con, revision=2, **settings)[STAY]


@pytest.fixture(params=["mimic", "meds"])
def made(request, tmp_path):
    """`made(chartevents=[...])`: the record of a patient with these events, from tables and from MEDS in turn."""

    def record(*, predict_at: str = "admission", **events) -> Record:
        root = write_ward(tmp_path / "ward", **{"chartevents": [HEART]} | events)
        if request.param == "mimic":
            return read(root, predict_at=predict_at)
        folder = write_meds(root, tmp_path / "meds", shards=1)
        dictionary = tmp_path / "dictionary"  # MEDS has no categories of items
        (dictionary / "icu").mkdir(parents=True)
        (root / "icu/d_items.parquet").rename(dictionary / "icu/d_items.parquet")
        return read(folder, "meds", beside=(dictionary,), predict_at=predict_at)

    return record


def course(record: Record, name: str):
    return record.courses[[reading for reading, _ in record.readings].index(name)]


def drug(record: Record, name: str):
    return record.infusions[[given for given, _ in record.drugs].index(name)]


def text(record: Record, template: str = "intervals/2", **sections) -> str:
    return templates.template(template, sections or None).write(record, 48)


def test_what_runs_at_icu_admission_is_shown(made):
    """Ventilation and a vasopressor that began before the stay, and end in it, after it, or never in the window."""
    record = made(
        procedureevents=[procedure(-0.6, 336, 225792), procedure(-5, -1, 225752)],
        inputevents=[infusion(-2, 3, 221906, 5.0, 0.2, "mcg/kg/min"), infusion(-9, -3, 222315, 5.0, 2.4, "units/hour")],
    )
    assert record.procedures == ("Invasive ventilation",)
    assert record.periods[0][2:] == (True, True, 48.0)
    assert [name for name, _ in record.drugs] == ["Norepinephrine"]
    norepinephrine = drug(record, "Norepinephrine")
    assert (norepinephrine.at_start, norepinephrine.at_end, norepinephrine.hours) == (True, False, 3.0)
    assert record.drug_times[0] == (1, 0.0, 0.0)
    assert "Invasive ventilation (running at admission, 48 h, running now)" in text(record)
    assert "Norepinephrine (0.2 mcg/kg/min, running at admission, 3 h)" in text(record)
    table = features.table([(STAY, record)], common=0, revision=2)[1]
    values = dict(zip(table.names, table.values[0], strict=True))
    assert values["running Invasive ventilation"] == values["running Norepinephrine"] == 1
    assert values["hours ventilated"] == 48
    assert values["Norepinephrine highest rate"] == pytest.approx(0.2)
    assert values["Propofol highest rate"] == 0


def test_of_what_goes_on_beyond_the_window_neither_end_nor_amount_is_told(made):
    running = [infusion(40, 70, 222168, 900.0, 30.0, "mcg/kg/min")]
    record = made(inputevents=running, procedureevents=[procedure(47, 400, 225752)])
    assert record.drugs == (("Propofol", None),)
    assert drug(record, "Propofol")[3:] == (30.0, 30.0, 30.0, False, True, 8.0)
    assert record.periods[0][2:] == (False, True, 1.0)


@pytest.mark.parametrize(
    ("itemid", "rate", "unit", "dose"),
    [
        (221906, 0.1, "mcg/kg/min", 0.1),
        (221906, 0.0002, "mg/kg/min", 0.2),  # mimic-code, norepinephrine
        (221906, 8.0, "mcg/min", 0.1),  # of 80 kg
        (222315, 0.04, "units/min", 2.4),  # mimic-code, vasopressin
        (221906, 7.5, "mcg/kg/min", None),  # nobody gets so much
        (221906, 3.0, "grains/fortnight", None),
    ],
)
def test_rates_are_told_in_the_unit_of_the_drug(tmp_path, itemid, rate, unit, dose):
    root = write_ward(tmp_path / "ward", chartevents=[HEART], inputevents=[infusion(1, 2, itemid, 1.0, rate, unit)])
    (how,) = read(root).infusions
    assert how.highest == (None if dose is None else pytest.approx(dose))


def test_first_last_and_highest_rate_follow_time(made):
    rates = [(1, 2, 0.05), (2, 5, 0.4), (5, 9, 0.1)]
    record = made(inputevents=[infusion(a, b, 221906, 1.0, r, "mcg/kg/min") for a, b, r in reversed(rates)])
    assert drug(record, "Norepinephrine")[3:6] == (0.05, 0.1, 0.4)
    assert "Norepinephrine (highest 0.4, last 0.1 mcg/kg/min, 8 h)" in text(record)


def test_heparin_infusion_and_prophylaxis_are_apart(made):
    record = made(inputevents=[infusion(1, 2, 225152, 900.0, 900.0, "units/hour"), infusion(1, 1.1, 225975, 1.0)])
    assert [name for name, _ in record.drugs] == ["Heparin infusion", "Heparin prophylaxis"]


def test_the_verbal_response_of_an_intubated_patient_is_not_testable(made):
    """No Response-ETT is no verbal 1: there is no sum, and the components and the sedation stand by themselves."""
    gcs = [
        chart(1, 220739, 4, "Spontaneously"), chart(1, 223900, 5, "Oriented"), chart(1, 223901, 6, "Obeys Commands"),
        chart(5, 220739, 1, "None"), chart(5, 223900, 1, "No Response-ETT"), chart(5, 223901, 4, "Flex-withdraws"),
        chart(5, 228096, -4, "-4 Deep sedation"),
    ]  # fmt: skip
    record = made(chartevents=gcs)
    assert course(record, "Glasgow coma scale")[:2] == (15.0, 15.0)
    assert course(record, "Glasgow coma scale").count == 1
    assert course(record, "GCS verbal").count == 1
    assert (course(record, "GCS eye").last, course(record, "GCS motor").last) == (1.0, 4.0)
    assert course(record, "Sedation scale (RASS)").last == -4.0
    assert record.words[-1] == ("GCS verbal", "not testable (intubated)", 5.0)
    assert "GCS verbal not testable (intubated)" in text(record)


@pytest.mark.parametrize("ventilated", [True, False])
def test_where_no_words_are_kept_a_verbal_1_under_ventilation_is_not_testable(tmp_path, ventilated):
    gcs = [chart(2, 220739, 2.0), chart(2, 223900, 1.0), chart(2, 223901, 5.0)]
    root = write_ward(tmp_path / "ward", chartevents=gcs, procedureevents=[procedure(0, 9, 225792)] * ventilated)
    record = read(root)
    assert ("Glasgow coma scale" in dict(record.readings)) == (not ventilated)
    assert (record.words != ()) == ventilated


def test_a_verbal_response_after_extubation_counts_again(tmp_path):
    gcs = [chart(2, 220739, 4), chart(2, 223900, 1, "No Response-ETT"), chart(2, 223901, 6), chart(9, 223900, 4)]
    record = read(write_ward(tmp_path / "ward", chartevents=gcs))
    assert course(record, "Glasgow coma scale")[:2] == (14.0, 14.0)
    assert record.words == ()


def test_inspired_oxygen_may_be_a_fraction_and_a_flow_is_none(made):
    record = made(chartevents=[chart(1, 223835, 0.4), chart(2, 223835, 60), chart(3, 223835, 1.0), chart(4, 223835, 6)])
    assert course(record, "Inspired oxygen")[:5] == (40.0, 100.0, 40.0, 100.0, 3)


def test_the_respiratory_rate_of_the_ventilator_counts(made):
    record = made(chartevents=[chart(1, 220210, 18), chart(2, 224690, 24)])
    assert course(record, "Respiratory rate")[:2] == (18.0, 24.0)


def test_the_ratio_takes_the_oxygen_of_the_four_hours_before(made):
    gases = [
        chart(1, 223835, 50), chart(2, 220224, 80), chart(5.5, 220224, 90), chart(7, 223835, 100), chart(7, 220224, 70),
    ]  # fmt: skip
    assert course(made(chartevents=gases), "PaO2/FiO2 ratio")[:5] == (160.0, 70.0, 70.0, 160.0, 2)


def test_body_mass_is_weight_over_height_squared(made):
    record = made(chartevents=[chart(1, 226531, 176.37), chart(1, 226707, 70.0)])
    assert course(record, "Weight").first == pytest.approx(80, rel=1e-3)
    assert course(record, "Body mass index").first == pytest.approx(80 / 1.778**2, rel=1e-3)


def test_urine_rows_beyond_two_litres_are_no_measurement_and_irrigant_is_subtracted(made):
    record = made(outputevents=[
        output(1, 226559, 400), output(2, 226559, 20_000), output(3, 227488, 100), output(4, 226588, 50),
    ])  # fmt: skip
    assert record.urine == 300.0
    assert record.fluid_out == 350.0


def test_fluid_in_is_rate_times_hours_or_the_share_of_an_amount(made):
    record = made(inputevents=[
        infusion(-2, 2, 225158, 400.0, 100.0, "mL/hour"),  # two of its hours
        infusion(46, 60, 225158, 1400.0, 100.0, "mL/hour"),  # runs on: two hours, whatever the end
        infusion(5, 5.5, 225158, 250.0), infusion(40, 90, 225158, 999.0), infusion(1, 2, 226364, 2000.0),
    ], outputevents=[output(1, 226559, 150)])  # fmt: skip
    assert record.fluid_in == 200.0 + 200.0 + 250.0
    assert "fluid in 650 mL, fluid out 150 mL, balance +500 mL" in text(record)


def test_the_laboratory_of_the_day_before_and_what_no_chart_item_has(made):
    record = made(labevents=[
        lab(-30, 50912, 9.0), lab(-20, 50912, 2.5), lab(-3, 50912, 3.5), lab(2, 50912, 7.0), lab(2, 51277, 16.2),
    ])  # fmt: skip
    assert record.earlier == (("Creatinine", 3.5),)
    assert "Creatinine" not in dict(record.readings)  # charted values stand for those of the stay
    assert dict(record.readings)["RDW"] == pytest.approx(16.2, rel=1e-6)
    assert "Laboratory in the 24 hours before: Creatinine 3.5" in text(record)


def test_where_the_patient_came_from(made):
    record = made(codes=[(EARLIER, "I509"), (EARLIER, "E119"), (LATER, "C780"), (ADMISSION, "J449")])
    known = record.background
    assert (known.admission_type, known.admission_location) == ("EW EMER.", "EMERGENCY ROOM")
    assert (known.first_careunit, known.hours_before_icu) == ("Coronary Care Unit (CCU)", 6.0)
    assert known.comorbidities == ("congestive heart failure", "diabetes")
    assert "Known from earlier admissions: congestive heart failure, diabetes" in text(record)


def test_the_service_says_whether_the_patient_is_surgical(tmp_path):
    root = write_ward(tmp_path / "ward", chartevents=[HEART])
    assert read(root).background.surgical is False  # surgery takes over at 60 h


def test_devices_and_code_status_are_the_last_ones_charted(made):
    record = made(chartevents=[
        HEART, chart(1, 226732, None, "Nasal cannula"), chart(9, 226732, None, "Endotracheal tube"),
        chart(3, 223758, None, "DNR (do not resuscitate)"), chart(4, 223849, 2.0, "CMV/ASSIST"),
        chart(50, 226732, None, "None"),
    ])  # fmt: skip
    assert [word[:2] for word in record.words] == [
        ("Code status", "DNR (do not resuscitate)"), ("Oxygen device", "Endotracheal tube"),
        ("Ventilator mode", "CMV/ASSIST"),
    ]  # fmt: skip


def test_the_clock_decides_what_was_known(tmp_path):
    """A value that was charted in the window and reported after it."""
    chartevents = [HEART, chart(47, 225668, 6.0, stored=49), chart(3, 225668, 2.0)]
    root = write_ward(tmp_path / "ward", chartevents=chartevents, labevents=[lab(-1, 50912, 4.0, stored=60)])
    assert course(read(root), "Lactate")[:2] == (2.0, 6.0)
    stored = read(root, clock="storetime")
    assert course(stored, "Lactate")[:2] == (2.0, 2.0)
    assert read(root).earlier
    assert stored.earlier == ()


def test_the_last_hours_are_those_before_discharge(made):
    record = made(
        predict_at="icu_discharge",
        chartevents=[chart(3, 220045, 200), chart(100, 220045, 80), chart(119, 220045, 70)],
        procedureevents=[procedure(1, 119, 225792)],
    )
    assert course(record, "Heart rate")[:5] == (80.0, 70.0, 70.0, 80.0, 2)
    assert record.at_discharge
    assert record.periods[0].at_start
    assert text(record, readings=None).startswith("Readings, mean of the last 48 hours in intensive care:\n")


def test_an_age_over_89_is_told_as_that(made):
    record = made(age=91)
    assert record.age == 90
    assert text(record, person=None) == "Age over 89, male."
    assert text(record, "compact/2", person=None) == ">89M"


@pytest.mark.parametrize(("gender", "interval", "flag"), [("F", "12.0-16.0", ""), ("M", "13.5-17.5", "L")])
def test_reference_intervals_follow_the_sex(tmp_path, gender, interval, flag):
    root = write_ward(tmp_path / "ward", gender=gender, chartevents=[chart(1, 220228, 12.5)])
    assert text(read(root), readings=None).endswith(f"\nHemoglobin 12.5 ({interval}) g/dL")
    assert text(read(root), "compact/2", readings=None) == f"48h Hgb 12.5{flag}"


def test_values_dropped_and_stays_without_are_counted(tmp_path):
    chartevents = [HEART, chart(2, 220045, 999), chart(1, 223835, 0.4), chart(2, 223835, 6)]
    counts = Counts()
    read(write_ward(tmp_path / "ward", chartevents=chartevents), counts=counts)
    rows = {row["reading"]: row for row in counts.rows()}
    assert rows["Heart rate"] == {"reading": "Heart rate", "values": 2, "dropped": 1, "stays_without": 0, "stays": 1}
    assert rows["Inspired oxygen"]["dropped"] == 1
    assert rows["Lactate"] == {"reading": "Lactate", "values": 0, "dropped": 0, "stays_without": 1, "stays": 1}
