"""Patient bootstrap against scikit-learn called once a resample, in one process: seconds, ratio, peak memory.

python -m experiments.benchmarks.bootstrap
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from patientdx.metrics.bootstrap import intervals
from patientdx.metrics.ranking import auprc, auroc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--sklearn-resamples", type=int, default=100, help="its time is scaled up from these")
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    subject = random.integers(0, asked.rows * 4 // 5, asked.rows)
    label = random.random(asked.rows) < 0.12
    score = random.normal(size=asked.rows) + label

    def ours() -> None:
        intervals({"auroc": auroc, "auprc": auprc}, score, label, subject, resamples=asked.resamples)

    ours_seconds = min(_seconds(ours) for _ in range(3))
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()

    _, patient = np.unique(subject, return_inverse=True)
    patients = patient.max() + 1

    def theirs() -> None:
        for _ in range(asked.sklearn_resamples):
            weight = np.bincount(random.integers(0, patients, patients), minlength=patients)[patient]
            roc_auc_score(label, score, sample_weight=weight)
            average_precision_score(label, score, sample_weight=weight)

    theirs_seconds = _seconds(theirs) * asked.resamples / asked.sklearn_resamples
    print(f"AUROC and AUPRC, {asked.rows} rows, {patients} patients, {asked.resamples} resamples")
    print(f"ours          {ours_seconds:8.3f} s   peak {peak:.0f} MiB")
    print(f"scikit-learn  {theirs_seconds:8.3f} s   ({asked.sklearn_resamples} resamples timed)")
    print(f"ratio         {theirs_seconds / ours_seconds:8.1f}")


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
