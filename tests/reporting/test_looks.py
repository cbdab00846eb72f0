"""What a reader sees of tables and charts: titles stay whole, models can be told apart."""

from patientdx.core.tables import count, make_table
from patientdx.reporting import terminal
from patientdx.reporting.charts import other_looks

BASELINES = ["tabular_gbm", "tabular_logistic", "sofa", "oasis", "news2"]


def test_the_title_of_a_table_that_is_narrower_is_not_broken():
    lines = terminal.text(make_table("sizes", "Examples of every split", ["n"], [[count(20)]])).rstrip().splitlines()
    assert lines == ["Examples of every split", "n", "──", "20"]


def test_the_parents_and_the_default_baselines_have_a_look_of_their_own():
    looks = other_looks(["base", "pivot", *BASELINES])
    assert len({(look.colour, tuple(look.dash or ())) for look in looks.values()}) == len(looks) == 7
