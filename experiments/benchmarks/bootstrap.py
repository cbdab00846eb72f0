"""Patient bootstrap against scikit-learn called once per resample, in one process: seconds, ratio, peak memory.

python -m experiments.benchmarks.bootstrap
"""

from __future__ import annotations

import tracemalloc

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from experiments.benchmarks import harness
from patientdx.metrics.bootstrap import intervals
from patientdx.metrics.ranking import auprc, auroc


def main() -> None:
    """Time both ways and print the ratio."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--sklearn-resamples", type=int, default=100, help="its time is scaled up from these")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    subject = random.integers(0, args.rows * 4 // 5, args.rows)
    label = random.random(args.rows) < 0.12
    score = random.normal(size=args.rows) + label
    _, patient = np.unique(subject, return_inverse=True)
    patients = patient.max() + 1

    def ours() -> None:
        intervals({"auroc": auroc, "auprc": auprc}, score, label, subject, resamples=args.resamples)

    def sklearn() -> None:
        for _ in range(args.sklearn_resamples):
            weight = np.bincount(random.integers(0, patients, patients), minlength=patients)[patient]
            roc_auc_score(label, score, sample_weight=weight)
            average_precision_score(label, score, sample_weight=weight)

    our_seconds = min(harness.measure({"ours": ours}, 3)["ours"]["wall"])
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    (seconds,) = harness.measure({"sklearn": sklearn}, 1)["sklearn"]["wall"]
    scaled = seconds * args.resamples / args.sklearn_resamples
    title = f"AUROC and AUPRC, {args.rows} rows, {patients} patients, {args.resamples} resamples"
    rows = [
        ("ours", f"{our_seconds:.3f}", f"{peak:.0f}", "1.0"),
        (
            f"scikit-learn ({args.sklearn_resamples} resamples timed)",
            f"{scaled:.3f}",
            "",
            f"{scaled / our_seconds:.1f}",
        ),
    ]
    harness.show(harness.table(title, ("way", "wall s", "peak MiB", "x ours"), rows, 1))


if __name__ == "__main__":
    main()
