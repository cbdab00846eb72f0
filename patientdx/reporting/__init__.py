"""Results for readers: terminal tables, a page, exports for a paper, pictures, the certificate.

Rows are dicts, one a model and split: `task`, `split`, `method`, `lambda` (float or None), `role` (base, merged, pivot
or a tabular model's name), for each metric its value and its interval (`auroc`, `auroc_ci_low`, `auroc_ci_high`),
`n`, `events`, `prevalence`, `patients`, `abstention_mass` (probability on yes and no together), `distinct_scores`,
`fingerprint`. A key that is absent or None is shown as absent. Tables fit a terminal of 80 characters.
"""

from patientdx.core.tables import metric_names, model_name, write_csv
from patientdx.evaluation.pilot_choice import choose
from patientdx.reporting.pages import write_report
from patientdx.reporting.pictures import lambda_curve
from patientdx.reporting.run_tables import headlines, show_run
from patientdx.reporting.runs import Run, Study
from patientdx.reporting.seeds import over_seeds
from patientdx.reporting.significance import best
from patientdx.reporting.terminal import show

__all__ = [
    "Run",
    "Study",
    "best",
    "choose",
    "headlines",
    "lambda_curve",
    "metric_names",
    "model_name",
    "over_seeds",
    "show",
    "show_run",
    "write_csv",
    "write_report",
]
