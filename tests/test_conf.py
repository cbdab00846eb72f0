"""Every yaml of conf/: it composes, it is accepted, its function takes its keys, its header's commands work."""

import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.measuring import SCRIPTS
from experiments.published import published
from patientdx.core.functions import dotted
from patientdx.evaluation.config.run_config import RunConfig, parse

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"
FILES = sorted(CONF.rglob("*.yaml"))  # without base_model and pivot_model: links to models
LAUNCHERS = [path for path in FILES if path.parent.parent.name == "hydra"]  # Hydra's own group, not in our list
SIZES = [path for path in FILES if path.parent.name == "size"]  # empty: they choose among CUT
CUT = [path for path in FILES if path.parent.name == "size_of"]  # what size=small makes of a study
PRESETS = [path for path in FILES if path.parent.parent.name == "merge"]  # numbers for a method: merge=published/della
SHARED = [path for path in FILES if path.name.startswith("_")]  # keys that several yamls of a group have in common
NOT_CHOSEN = [*LAUNCHERS, *SIZES, *CUT, *PRESETS, *SHARED]
OPTIONS = [path for path in FILES if path.parent != CONF and path not in NOT_CHOSEN]  # what can be chosen in a group
METHODS = {path.stem for path in FILES if path.parent == CONF / "merge"}
LINKS = {"models": ("base_model", "pivot_model")}  # groups that are links to a folder: a card serves every role
NO_STUDY = CONF / "experiment" / "none.yaml"  # the default
STUDIES = [path for path in OPTIONS if path.parent.name == "experiment" and path != NO_STUDY]
SUPPLIED = {"merge": ("parents",), "search": ("pilot",)}  # what the pipeline gives beside the yaml
NOT_ARGUMENTS = {"_target_", "name", "kind", "metrics"}


def name_of(path: Path) -> str:
    return path.relative_to(CONF).with_suffix("").as_posix()


def groups_of(path: Path) -> tuple[str, ...]:
    """The groups in which a yaml can be chosen."""
    folder = path.parent.relative_to(CONF).as_posix()
    return LINKS.get(folder, (folder,))


CHOICES = [(group, path) for path in OPTIONS for group in groups_of(path)]


def content(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


@pytest.fixture(autouse=True)
def conf():
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


@cache
def composed(*overrides: str) -> DictConfig:
    """The config with Hydra's own node; many tests ask for the same, and each takes a quarter of a second."""
    return compose("config", overrides=list(overrides), return_hydra_config=True)


@cache
def settings(*overrides: str) -> RunConfig:
    found = composed(*overrides)
    return parse(OmegaConf.masked_copy(found, [key for key in found if key != "hydra"]))


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`, however deep."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


def header(path: Path) -> list[str]:
    """The comment lines before the first key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(itertools.takewhile(lambda line: line.startswith("#"), lines))


def is_published(path: Path) -> bool:
    """Whether a study is somebody's table, to be printed beside ours by a script of its own."""
    return f"python -m experiments.{path.stem}" in "\n".join(header(path))


def read_by(path: Path) -> str | None:
    """The study whose script reads this one: itself, or of a variant (<stem>_<word>) the study that it is one of."""
    if is_published(path):
        return path.stem
    other = re.search(rf"python -m experiments\.(\w+) --name {path.stem}\b", "\n".join(header(path)))
    assert other is None or path.stem.startswith(f"{other[1]}_")
    return other and read_by(path.with_stem(other[1]))


def commands(path: Path) -> list[list[str]]:
    """The arguments of every `python run.py …` in the header; two blanks or a bracket end a command."""
    found = re.findall(r"python run\.py(.*?)(?= {2}| \(|$)", "\n".join(header(path)), re.MULTILINE)
    return [shlex.split(arguments) for arguments in found]


def jobs(arguments: list[str]) -> Iterator[list[str]]:
    """The overrides of each run of a command; what stands in <…> is for the user to fill in, and any word will do."""
    sweep = arguments[:1] == ["-m"]
    choices = []
    for one in OverridesParser.create().parse_overrides([re.sub("<.*?>", "x", a) for a in arguments[sweep:]]):
        assert sweep or not one.is_sweep_override(), f"{one.input_line} needs -m"
        key, plain = one.get_key_element(), one.get_value_element_as_str
        values = one.sweep_string_iterator() if one.is_sweep_override() else [plain()]
        choices.append([f"{key}={value}" for value in values])
    yield from (list(job) for job in itertools.product(*choices))


def swept(stem: str, *more: str) -> Iterator[list[str]]:
    """The overrides of each run that a study's overlay sweeps."""
    study = [f"experiment={stem}", *more]
    cfg = composed(*study)
    yield from jobs(["-m", *study, *(f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items())])


def covering(found: Iterator[list[str]]) -> Iterator[list[str]]:
    """Of the runs of a sweep so many that every value of every key is in one: each takes a tenth of a second."""
    seen: set[str] = set()
    for job in found:
        if not seen.issuperset(job):
            seen.update(job)
            yield job


def chosen(cfg: DictConfig, group: str) -> str:
    return cfg.hydra.runtime.choices[group]


def test_the_defaults_compose_and_are_accepted():
    given = settings()
    assert (given.merge.name, given.weight) == ("slerp", 0.4)


def test_every_group_has_its_place_in_the_defaults_list():
    groups = {group for path in OPTIONS + SIZES + CUT for group in groups_of(path)}
    listed = {key for entry in content(CONF / "config.yaml")["defaults"] if isinstance(entry, dict) for key in entry}
    # base_model@ancestor is a base_model elsewhere; not every study need have another size
    assert groups == {group.partition("@")[0].removeprefix("optional ") for group in listed}


def test_the_links_are_groups_of_the_same_cards():
    for folder, groups in LINKS.items():
        assert all((CONF / group).is_symlink() and (CONF / group).readlink() == Path(folder) for group in groups)


@pytest.mark.parametrize(("group", "path"), CHOICES, ids=[f"{group}/{path.stem}" for group, path in CHOICES])
def test_a_yaml_composes_and_is_accepted(group, path):
    given = settings(f"{group}={path.stem}", *(["save=merged"] if (group, path.stem) == ("task", "none") else []))
    assert given.systems.model == (path.stem if group == "model" else "merged")


NAMED = [path for path in OPTIONS if path.parent.name != "tracking" and path != NO_STUDY]


@pytest.mark.parametrize("path", NAMED, ids=name_of)
def test_stem_and_name_are_one(path):
    node = content(path)
    node = node.get(path.parent.name, node)  # a yaml of package _global_ holds its group as a key
    assert node["name"] == path.stem


@pytest.mark.parametrize("path", PRESETS, ids=name_of)
def test_a_preset_sets_numbers_of_a_method_that_there_is(path):
    method = next(stem for stem in sorted(METHODS, key=len, reverse=True) if path.stem.startswith(stem))
    given = settings(f"merge={path.parent.name}/{path.stem}", "base_model@ancestor=smollm2_135m_instruct")
    assert given.merge.name == method
    assert given.merge.call.target == f"patientdx.merge.{method}.{method}"
    usual = settings(f"merge={method}", "base_model@ancestor=smollm2_135m_instruct")
    if path.stem != "hierarchical":  # where the paper is silent the method's own reading is the usual one
        assert (given.merge.call, given.weight) != (usual.merge.call, usual.weight)
    assert set(content(path)) <= {"defaults", "lambda", "merge"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_at_most_one_target_inside_patientdx(path):
    found = list(targets(content(path)))
    assert len(found) <= 1
    for node in found:
        assert callable(dotted(node["_target_"]))


@pytest.mark.parametrize("path", [path for path in FILES if list(targets(content(path)))], ids=name_of)
def test_the_function_takes_the_keys(path):
    (node,) = targets(content(path))
    function = dotted(node["_target_"])
    arguments = dict.fromkeys(node.keys() - NOT_ARGUMENTS)
    named = inspect.signature(function).parameters.keys()
    arguments |= dict.fromkeys(named & {"ancestor", "config", "name", "seed"}) if path.parent.name == "merge" else {}
    arguments |= dict.fromkeys(named & {"seed"}) if path.parent.name == "search" else {}
    if path.parent.name == "model":
        tabular = f"patientdx.training.tabular.{path.stem.removesuffix('_train_pilot')}"
        assert node["_target_"] == ("patientdx.training.severity.severity_score" if "score" in node else tabular)
    signature = inspect.signature(function)
    bind = signature.bind_partial if path in SHARED else signature.bind  # shared keys are a part of the arguments
    bind(*SUPPLIED.get(path.parent.name, ()), **arguments)
    if path.parent.name == "merge":
        assert node["_target_"] == f"patientdx.merge.{path.stem}.{path.stem}"
    if path.parent.name == "search":
        assert node["_target_"] == f"patientdx.selection.{path.stem}.{path.stem}"
    for label, metric in node.get("metrics", {}).items():
        assert callable(dotted(metric)), label


@pytest.mark.parametrize("path", [path for path in FILES if path not in STUDIES + CUT + SHARED], ids=name_of)
def test_the_header_has_commands_that_work(path):
    found = commands(path)
    assert found, f"{path.name} does not say how it is used"
    for arguments in found:
        for overrides in jobs(arguments):
            settings(*overrides)
            cfg = composed(*overrides)
            groups, option = groups_of(path), path.stem
            if path in PRESETS:
                groups, option = ("merge",), f"{path.parent.name}/{path.stem}"
            assert path.parent == CONF or option in [chosen(cfg, group) for group in groups]


@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_a_study_sweeps_without_m_and_every_job_is_accepted(path, tmp_path):
    for task in CONF.glob("task/[!_]*.yaml"):  # the folder that data= is to name
        (tmp_path / task.stem).mkdir()
    cfg = composed(f"experiment={path.stem}")
    assert cfg.hydra.mode.name == "MULTIRUN"
    found = [settings(*job) for job in covering(swept(path.stem))]
    assert len(found) > 1
    assert {given.name for given in found} == {path.stem}
    assert commands(path)
    for arguments in commands(path):
        assert arguments[0] == f"experiment={path.stem}"
        for job in jobs(["-m", *(re.sub("^data=<.*>", f"data={tmp_path}", word) for word in arguments)]):
            settings(*job)


@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_what_all_tasks_of_a_study_take_can_be_given_for_all(path):
    # Hydra composes the study once before its jobs: what that task lacks is refused on the command line.
    cfg = composed(f"experiment={path.stem}")
    tasks = str(cfg.hydra.sweeper.params.get("task") or chosen(cfg, "task")).split(",")
    assert set.intersection(*(set(composed(f"task={name}").task) for name in tasks)) <= set(cfg.task)


@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_a_small_study_is_the_study_with_less(path):
    (small,) = (other for other in CUT if other.stem == f"{path.stem}_small")
    assert commands(small) == [[f"experiment={path.stem}", "size=small"]]
    jobs_of_it = list(swept(path.stem, "size=small"))
    assert {settings(*job).name for job in covering(jobs_of_it)} == {small.stem}
    assert 0 < len(jobs_of_it) <= len(list(swept(path.stem)))


def test_without_a_study_small_is_one_run_on_few_stays():
    assert (settings("size=small").name, settings("size=small").composed["task"]["synthetic"]["stays"]) == ("small", 60)
    assert {path.stem for path in CUT} == {"none_small", *(f"{path.stem}_small" for path in STUDIES)}


@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_a_study_is_in_the_list_and_says_how_it_is_read(path):
    table = (REPOSITORY / "experiments" / "README.md").read_text(encoding="utf-8")
    assert f"`python run.py experiment={path.stem}`" in table
    told = "\n".join(header(path))
    assert (read_by(path) is not None) != (f"python -m patientdx.cli report outputs/{path.stem}" in told)


@pytest.mark.parametrize("path", [path for path in STUDIES if is_published(path)], ids=name_of)
def test_a_published_table_has_its_script_its_block_and_its_line(path):
    assert (REPOSITORY / "experiments" / f"{path.stem}.py").is_file()
    assert path.stem == "claims" or published(path.stem).cells  # its claims name cells of the other blocks
    table = (REPOSITORY / "experiments" / "README.md").read_text(encoding="utf-8")
    assert f"`python -m experiments.{path.stem}`" in table


def test_every_published_block_is_a_study():
    blocks = set(yaml.safe_load((REPOSITORY / "experiments" / "paper.yaml").read_text(encoding="utf-8")))
    tables = {path.stem for path in STUDIES if is_published(path)}
    assert tables - {"claims"} <= blocks <= tables | set(SCRIPTS)  # or of a script that measures without a study


def test_the_lambda_curve_is_both_methods_over_the_whole_grid():
    given = [dict(one.split("=") for one in job) for job in swept("lambda_curve")]
    grid = [i / 10 for i in range(11)]
    assert [(one["merge"], float(one["lambda"])) for one in given] == list(itertools.product(("slerp", "linear"), grid))


@pytest.mark.parametrize("path", [path for path in OPTIONS if path.parent.name == "pair"], ids=name_of)
def test_a_pair_sets_both_parents_and_names_models_that_can_stand_beside(path):
    own, *rest = commands(path)
    given = settings(*own)
    assert (given.merge.base.name, given.merge.pivot.name) != (settings().merge.base.name, settings().merge.pivot.name)
    pair = content(path)["pair"]
    assert (given.merge.base.name, given.merge.pivot.name) == (pair["base_model"], pair["pivot_model"])
    beside = {model for key, model in pair.items() if key not in ("name", "base_model", "pivot_model")}
    scored = {settings(*job).merge.base.name for command in rest if "merge=none" in command for job in jobs(command)}
    assert scored in (set(), beside)  # by the command that scores them alone, where it has one
    assert given.merge.base.name not in beside
