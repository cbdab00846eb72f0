"""A task's labels and splits as MEDS files.

    python -m patientdx.cli labels FOLDER task=mortality task.window_hours=24 ...

takes a folder and what run.py takes, and writes into the folder

- labels/<task>.parquet: subject_id, prediction_time, boolean_value (MEDS label schema);
- labels/<task>_stays.parquet: subject_id, prediction_time, stay_id, row by row the same, as that schema takes no more
  (where the task's examples are stays with a number);
- metadata/subject_splits.parquet: subject_id, split: train, tuning (our pilot) or held_out (our test).

The files hold ids and dates of patients. Where the data is credentialed they are credentialed too: keep them where the
tables themselves may be kept, out of this repository, of results and of anything shared.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from patientdx.cli.compose import configuration
from patientdx.cli.ending import ended
from patientdx.cli.messages import argument_parser, print_output
from patientdx.core.errors import UserError
from patientdx.tasks.meds_labels import write


def labels(folder: Path, overrides: Sequence[str]) -> list[str]:
    """Writes the files of the task that the overrides choose; what there is to say of it, line by line.

    Raises UserError for overrides that do not compose or choose no task, for a task that will not do, and for a folder
    that cannot or must not be written to.
    """
    task = configuration(overrides).task
    if task is None:
        raise UserError("task=none has no labels: choose another task.")
    data = task.call().load()
    paths = write(data, folder)
    terms = "open" if data.open_data else "credentialed: keep these files where the tables themselves may be kept"
    return [*(f"written: {path}" for path in paths), f"{len(data.examples)} examples. The data is {terms}."]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 where it is refused."""
    parser = argument_parser("labels", __doc__)
    parser.add_argument("folder", type=Path, help="where to write; made where it is not there")
    parser.add_argument("overrides", nargs="*", help="words of run.py that choose the task")
    args = parser.parse_args(argv)
    return print_output(lambda: "\n".join(labels(args.folder, args.overrides)) + "\n")


if __name__ == "__main__":
    sys.exit(ended(main))
