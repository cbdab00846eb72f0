"""What run.py says to a command that cannot be done: exact words, exit code, no traceback, no model loaded."""

import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest
from command_line import forked, small

from patientdx.records.synthetic.hospital import hospital

NEITHER = "Use more stays, another seed, other task.fractions, or a larger task.limit."
TABLES = (
    "MIMIC-IV tables are incomplete: {fault}. Looked for <table>.{{parquet,csv.gz,csv}} in {folder}. "
    "Add a root that has them to task.mimic_root, or set task.mimic_root=null for the synthetic hospital."
)
# What is typed, and all that is said, beside the paths of this test.
SAID = {
    "several at once": (
        ["lambda=2", "dtype=int4", "bootstrap.resamples=3"],
        "3 problems in this configuration\n  lambda=2 is outside [0, 1]: 0 is the base model and 1 the pivot model.\n"
        "  dtype=int4: it is auto, bfloat16, float16 or float32.\n"
        "  bootstrap.resamples=3: give a whole number of at least 100.",
    ),
    "no positives": (
        ["task.limit=1"],
        f"AUROC needs both outcomes in every scored split: test has 0 positives and 1 negatives. {NEITHER}",
    ),
    "no positives in a split that is not always scored": (
        ["task.synthetic.seed=3", "splits=[train]"],
        f"AUROC needs both outcomes in every scored split: train has 0 positives and 21 negatives. {NEITHER}",
    ),
    "output": (
        ["output={folder}/file/below"],
        "{folder}/file/below/default cannot be written: Not a directory. Free space or set output= to another folder.",
    ),
    "output of a sweep": (
        ["-m", "output={folder}/file/below", "lambda=0.1,0.2"],
        "{folder}/file/below/default cannot be written: Not a directory. Free space or set output= to another folder.",
    ),
    "no such folder": (
        ["base_model.source={folder}/nowhere"],
        "unknown_base: there is nothing at {folder}/nowhere. A source is a folder, a .gguf file, a hub id "
        "(org/name), or wheel:<distribution>/<file inside>.",
    ),
    "table": (["task.mimic_root={folder}/no_table"], TABLES),
    "column": (["task.mimic_root={folder}/no_column"], TABLES),
    "truncated": (["pivot_model.source={folder}/truncated"], None),
    "shapes": (["pivot_model.source={folder}/shapes"], None),
    "vocabularies": (["pivot_model.source={folder}/vocabularies"], None),
    "tensors": (["pivot_model.source={folder}/tensors"], None),
}
# Hydra's own words and exit code: what was typed, and what must be among them.
HYDRA_SAID = {
    "unknown method": (["merge=slurp"], ["Could not find 'merge/slurp'", "linear\n", "none\n", "slerp\n"]),
    "unknown method of a sweep": (["-m", "merge=slerp,slurp"], ["Could not find 'merge/slurp'", "slerp\n"]),
    "unknown model": (["base_model=gpt"], ["Could not find 'base_model/gpt'", "smollm2_135m_instruct\n"]),
    "unknown key": (["lamda=0.3"], ["Could not override 'lamda'"]),
    "a sweep without -m": (
        ["lambda=0.1,0.2"],
        ["Ambiguous value for argument 'lambda=0.1,0.2'", "To sweep over it, add --multirun to your command line"],
    ),
}


@pytest.fixture(scope="module")
def folder(make_tiny, tiny_pivot, session_cache, tmp_path_factory) -> Path:
    """Parents and hospitals that will not do."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "file").touch()
    for name, model in (
        ("shapes", make_tiny(intermediate_size=96)),
        ("vocabularies", make_tiny(extra_tokens=("<|patient|>",))),
        ("tensors", make_tiny(num_hidden_layers=3)),
        ("truncated", tiny_pivot),
    ):
        shutil.copytree(model, folder / name)
    weights = folder / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    made = hospital(session_cache, stays=60)
    shutil.copytree(made, folder / "no_table")
    (folder / "no_table/icu/inputevents.parquet").unlink()
    shutil.copytree(made, folder / "no_column")
    stays = folder / "no_column/icu/icustays.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(stays).drop_columns(["outtime"]), stays)
    return folder


@pytest.fixture(scope="module")
def ended(folder, tiny_base, tiny_pivot) -> dict[str, subprocess.CompletedProcess]:
    """All these commands, each run once."""
    typed = {name: [one.format(folder=folder) for one in words] for name, (words, _) in (SAID | HYDRA_SAID).items()}
    commands = [
        [*(["-m"] if "-m" in words else []), *small(tiny_base, tiny_pivot), *(one for one in words if one != "-m")]
        for words in typed.values()
    ]
    return dict(zip(typed, forked(folder, commands, models_may_load=False), strict=True))


@pytest.mark.parametrize("name", [name for name, (_, said) in SAID.items() if said and said is not TABLES])
def test_words(ended, folder, name):
    done = ended[name]
    assert done.stderr == SAID[name][1].replace("{folder}", str(folder)) + "\n"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("name", "fault"), [("table", "no table icu/inputevents"), ("column", "no column outtime in icu/icustays")]
)
def test_words_on_tables(ended, folder, name, fault):
    done = ended[name]
    assert done.stderr == TABLES.format(fault=fault, folder=folder / f"no_{name}") + "\n"
    assert (done.returncode, done.stdout) == (2, "")


PARENTS = (
    "unknown_base and unknown_pivot cannot be merged tensor by tensor:\n- {}\n"
    "Choose parents of one family and size, with the same tokenizer and best a common ancestor.{}\n"
)
VOCABULARIES = " Different vocabularies are brought to one by tokenizer=base, pivot or union."


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "shapes",
            "6 tensors of other shape in unknown_base and unknown_pivot: "
            "model.layers.0.mlp.down_proj.weight [32, 64] and [32, 96], "
            "model.layers.0.mlp.gate_proj.weight [64, 32] and [96, 32], "
            "model.layers.0.mlp.up_proj.weight [64, 32] and [96, 32] and 3 more",
        ),
        (
            "vocabularies",
            "417 token ids differ in unknown_base and unknown_pivot: 3 is '!' and '<|patient|>', "
            "4 is '\"' and '!', 5 is '#' and '\"' and 414 more",
        ),
        (
            "tensors",
            "9 tensors only in unknown_pivot: model.layers.2.input_layernorm.weight, "
            "model.layers.2.mlp.down_proj.weight, model.layers.2.mlp.gate_proj.weight and 6 more",
        ),
    ],
)
def test_words_on_parents_that_do_not_fit(ended, name, fault):
    assert ended[name].stderr == PARENTS.format(fault, VOCABULARIES if name == "vocabularies" else "")
    assert (ended[name].returncode, ended[name].stdout) == (2, "")


def test_words_on_a_truncated_file(ended, folder):
    done, file = ended["truncated"], folder / "truncated/model.safetensors"
    size = file.stat().st_size
    assert done.stderr == (
        f"{file} is truncated or damaged: its header promises {size + 100} bytes, the file has {size}. "
        "Download or write it again.\n"
    )
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("name", HYDRA_SAID)
def test_words_of_hydra(ended, name):
    done = ended[name]
    for words in HYDRA_SAID[name][1]:
        assert words in done.stderr
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("ended")
def test_nothing_is_left_behind(folder):
    left = {path.name for path in (folder / "outputs").rglob("*") if path.is_file()}
    assert left <= {"multirun.yaml"}  # Hydra's own, before it looks at the jobs
