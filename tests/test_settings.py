"""The configuration: composed by Hydra from conf/, validated by `parse`, one message for each error."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import open_dict

from patientdx.core.errors import UserError
from patientdx.core.functions import Call, dotted
from patientdx.evaluation.config.run_config import RunConfig, parse

CONF = Path(__file__).parents[1] / "conf"
RANGE = "0 is the base model and 1 the pivot model."
NUMBER = "is not a number. Give one from 0 (base) to 1 (pivot)."
MISSING = object()


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("config", overrides=list(overrides))


def changed(key: str, value):
    """The default config with one key set, or taken away, behind Hydra's back: as another yaml would have it."""
    cfg = composed()
    *path, last = key.split(".")
    node = cfg
    for name in path:
        node = node[name]
    with open_dict(node):
        if value is MISSING:
            del node[last]
        else:
            node[last] = value
    return cfg


def errors(cfg) -> list[str]:
    """The lines of the refusal, without their count, which is checked here."""
    with pytest.raises(UserError) as refused:
        parse(cfg)
    head, *lines = str(refused.value).split("\n")
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    assert head == f"{count} in this configuration"
    assert all(line.startswith("  ") for line in lines)
    return [line[2:] for line in lines]


def test_the_default_config():
    config = parse(composed())
    assert isinstance(config, RunConfig)
    assert (config.weight, config.merge.name, config.task.name, config.task.kind) == (
        0.4,
        "slerp",
        "mortality",
        "binary",
    )
    assert config.merge.spec.call == Call("patientdx.merge.slerp.slerp", '{"collinear": 0.9995}')
    assert (config.merge.base.name, config.merge.pivot.name) == ("smollm2_135m_instruct", "smollm2_135m_numeric")
    assert [label for label, _ in config.task.metrics] == ["auroc", "auprc"]
    assert (config.inference.splits, parse(composed(), sweep=True).inference.splits) == (("test",), ("pilot", "test"))
    assert config.composed["lambda"] == 0.4
    assert hash(config.merge.spec.call) == hash(
        parse(composed("lambda=0.1")).merge.spec.call
    )  # a sweep shares its curves


def test_the_cache_of_the_environment_reaches_the_task(monkeypatch, tmp_path):
    monkeypatch.setenv("PATIENTDX_CACHE", str(tmp_path))
    config = parse(composed())
    assert config.cache == tmp_path
    assert json.loads(config.task.call.arguments)["cache"] == str(tmp_path)
    config = parse(composed("cache='~/somewhere'"))
    assert config.cache == Path.home() / "somewhere"
    assert json.loads(config.task.call.arguments)["cache"] == str(config.cache)


@pytest.mark.parametrize(("text", "weight"), [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)])
@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_lambda_from_end_to_end(method, text, weight):
    found = parse(composed(f"merge={method}", f"lambda={text}")).weight
    assert found == weight
    assert isinstance(found, float)


def test_no_merge_has_no_lambda():
    assert parse(composed("merge=none")).weight is None


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["lambda=abc"], f"lambda=abc {NUMBER}"),
        (["lambda=nan"], f"lambda=nan {NUMBER}"),
        (["lambda=inf"], f"lambda=inf {NUMBER}"),
        (["lambda=true"], f"lambda=True {NUMBER}"),
        (["lambda=null"], f"lambda=None {NUMBER}"),
        (["lambda='0.3'"], f"lambda=0.3 {NUMBER}"),
        (["lambda=[0.1]"], f"lambda=[0.1] {NUMBER} To sweep, add -m and write lambda=0.1,0.2,0.4."),
        (["lambda=[0.1,2]"], f"lambda=2 is outside [0, 1]: {RANGE}"),
        (["merge=ties", "lambda=-1"], "lambda=-1 is outside [0, inf]."),
        (["merge=ties", "lambda=x"], "lambda=x is not a number. Give one of at least 0."),
        (["tokenizer=mine"], "tokenizer=mine: it is base, pivot, union or null."),
        (
            ["extra_models=third"],
            "extra_models=third: give a list of folders or hub ids, as in extra_models=[/models/third].",
        ),
        (["task=none"], "task=none leaves nothing to do: choose a task, or add save=<folder> or dry_run=true."),
        (
            ["merge=ties", "pivot_model=metamath_mistral_7b"],
            "merge=ties works on differences from the parents' common ancestor, and they name no common one "
            "(smollm2_135m_instruct: unknown, metamath_mistral_7b: mistral_7b_v0_1): set "
            "base_model@ancestor=<its yaml>, or use a method without one (merge=slerp, linear).",
        ),
        (["lambda=1.5"], f"lambda=1.5 is outside [0, 1]: {RANGE}"),
        (["lambda=-0.1"], f"lambda=-0.1 is outside [0, 1]: {RANGE}"),
        (["lambda=2"], f"lambda=2 is outside [0, 1]: {RANGE}"),
        (
            ["merge=none", "lambda=0.3"],
            "lambda=0.3: merge=none has no λ. Leave lambda out, or use a method that has one (merge=slerp, linear).",
        ),
        (["+merge.gamma=3"], "merge.gamma: slerp has no such parameter; it takes collinear."),
        (["merge=linear", "+merge.collinear=1"], "merge.collinear: linear has no such parameter; it takes weights."),
        (["merge.collinear=high"], "merge.collinear must be a number, got 'high'."),
        (["merge.collinear=true"], "merge.collinear must be a number, got True."),
        (["merge.collinear=null"], "merge.collinear must be a number, got None."),
        (["task.window_hours=long"], "task.window_hours must be a whole number, got 'long'."),
        (["task.question=3"], "task.question must be a word or null, got 3."),
        (["task.kind=essay"], "task.kind=essay: it is one of binary, generation, multiple_choice, ranking."),
        (["splits=[x]"], "splits=['x']: give one or more of train, pilot, test."),
        (["splits=[test,x]"], "splits=['test', 'x']: give one or more of train, pilot, test."),
        (["splits=[]"], "splits=[]: give one or more of train, pilot, test."),
        (["splits=3"], "splits=3: give one or more of train, pilot, test."),
        (["dtype=int4"], "dtype=int4: it is bfloat16, float16 or float32."),
        (["device=tpu"], "device=tpu: it is auto or cpu."),
        (["parents=perhaps"], "parents=perhaps: it is true or false."),
        (["prompt_variants=perhaps"], "prompt_variants=perhaps: it is true or false."),
        (["clinical=perhaps"], "clinical=perhaps: it is true or false."),
        (["baselines=[gbm]"], "baselines=['gbm']: give a list of tabular_gbm, tabular_logistic, or [] for none."),
        (["baselines=3"], "baselines=3: give a list of tabular_gbm, tabular_logistic, or [] for none."),
        (["baselines=[merged]"], "baselines=['merged']: give a list of tabular_gbm, tabular_logistic, or [] for none."),
        (["+model.depth=3"], "model.depth: model=merged takes no keys; those of the merge are merge's."),
        (
            ["model=tabular_gbm", "model.max_iter=many"],
            "model.max_iter must be a whole number, got 'many'.",
        ),
        (
            ["model=tabular_logistic", "+model.depth=3"],
            "model.depth: tabular_logistic has no such parameter; it takes C, max_iter.",
        ),
        (
            ["model=tabular_gbm", "save=merged"],
            "model=tabular_gbm merges nothing: leave out save and dry_run, or use model=merged.",
        ),
        (
            ["model=tabular_gbm", "dry_run=true"],
            "model=tabular_gbm merges nothing: leave out save and dry_run, or use model=merged.",
        ),
        (
            ["model=tabular_gbm", "prompt_variants=true"],
            "prompt_variants=true: model=tabular_gbm reads no question. Leave it out, or use model=merged.",
        ),
        (["seed=-1"], "seed=-1: give a whole number of at least 0."),
        (["scoring.max_tokens=8"], "scoring.max_tokens=8: give a whole number of at least 16."),
        (["scoring.max_tokens=null"], "scoring.max_tokens=null: give a whole number of at least 16."),
        (["scoring.batch_tokens=0"], "scoring.batch_tokens=0: give a whole number of at least 1."),
        (["bootstrap.resamples=3"], "bootstrap.resamples=3: give a whole number of at least 100."),
        (["bootstrap.level=95"], "bootstrap.level=95: give a number between 0 and 1."),
        (["bootstrap.level=nan"], "bootstrap.level=nan: give a number between 0 and 1."),
        (["output=null"], "output=null: give a folder."),
        (["cache=7"], "cache=7: give a folder."),
        (["base_model.source=3"], "base_model.source must be a word or null, got 3."),
        (["pivot_model.chat_template=maybe"], "pivot_model.chat_template must be true or false, got 'maybe'."),
        (
            ["+base_model.quant=q4"],
            "base_model.quant: ModelSource has no such parameter; it takes name, source, revision, adapter, gguf, "
            "licence, ancestor, "
            "memory_gb, chat_template, template_args, made_by.",
        ),
        (
            ["merge._target_=os.system"],
            "merge._target_: os.system is not inside patientdx; no other function can be named in a yaml. "
            "docs/plugins.md says how another package declares its own.",
        ),
        (
            ["merge._target_=patientdx.merge.slerp.lerp"],
            "merge._target_: patientdx.merge.slerp.lerp does not exist; name a function as "
            "patientdx.<module>.<function>.",
        ),
        (
            ["merge._target_=patientdx.merge.curve.BLOCK"],
            "merge._target_: patientdx.merge.curve.BLOCK is no function; name a function as "
            "patientdx.<module>.<function>.",
        ),
        (
            ["task.metrics.auroc=sklearn.metrics.roc_auc_score"],
            "task.metrics.auroc: sklearn.metrics.roc_auc_score is not inside patientdx; no other function can be "
            "named in a yaml. docs/plugins.md says how another package declares its own.",
        ),
        (["+foo=1"], "foo: there is no such key."),
        (["+bootstrap.x=1"], "bootstrap.x: there is no such key; it takes level, resamples."),
        (["tracking.mode=wandb"], "tracking.mode=wandb: it is offline, online, trackio or none."),
        (["tracking.predictions=true"], "tracking.predictions=true: it is open, always or never."),
        (
            ["tracking.project=a/b"],
            "tracking.project=a/b: it cannot be a project's name. Give 1 to 128 characters without / \\ # ? % :",
        ),
        (
            ["+tracking.proyect=a"],
            "tracking.proyect: there is no such key; it takes entity, mode, predictions, project, tags.",
        ),
        (["finetune=lora", "finetune.loss=x"], "finetune.loss=x: it is answer or record."),
        (["finetune=lora", "finetune.batch=0"], "finetune.batch=0: give a whole number of at least 1."),
        (["finetune=full", "+finetune.rank=8"], "finetune.rank: finetune=full has no such key."),
        (
            ["finetune=lora", "finetune.batch=3", "finetune.micro_batch_size=2"],
            "finetune.micro_batch_size=2: a batch of 3 cannot be split so. Give a divisor of it.",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_error_has_its_message(overrides, fault):
    further = ["task.cache must be a path, got 7."] if overrides == ["cache=7"] else []  # the task has the same folder
    assert errors(composed(*overrides)) == [fault, *further]


@pytest.mark.parametrize(
    "key", ["merge._target_", "task._target_", "merge.name", "task.name", "model.name", "base_model.name"]
)
@pytest.mark.parametrize("value", [MISSING, None])
def test_what_a_yaml_must_hold(key, value):
    expected = [f"{key} is missing."]
    if key == "base_model.name":
        ending = "is missing: ModelSource needs it." if value is MISSING else "must be a word, got None."
        expected = [f"{key} {ending}"]
    assert errors(changed(key, value)) == expected


def test_a_parameter_without_default_must_be_given():
    [fault] = errors(changed("task.cache", MISSING))
    assert fault == "task.cache is missing: ClinicalTask needs it."


def test_an_unknown_key_of_a_task_names_those_there_are():
    [fault] = errors(changed("task.windows", 3))
    assert fault.startswith("task.windows: ClinicalTask has no such parameter; it takes ")
    assert "window_hours" in fault


@pytest.mark.parametrize("overrides", [["~merge"], ["~task", "~scoring"]])
def test_a_group_taken_away(overrides):
    names = sorted(one[1:] for one in overrides)
    with pytest.raises(UserError) as refused:
        parse(composed(*overrides))
    assert str(refused.value) == f"this configuration has no {', '.join(names)}: choose one, as in merge=slerp."


def test_all_errors_are_listed_together():
    cfg = composed(
        "lambda=2", "dtype=int4", "splits=[x]", "+merge.gamma=1", "seed=-3", "bootstrap.level=2", "+base_model.quant=q4"
    )
    assert sorted(fault.split(":")[0].split("=")[0].split(" ")[0] for fault in errors(cfg)) == [
        "base_model.quant",
        "bootstrap.level",
        "dtype",
        "lambda",
        "merge.gamma",
        "seed",
        "splits",
    ]


def test_an_error_that_a_task_takes_over_is_listed_once():
    assert errors(composed("seed=0.5")) == ["seed=0.5: give a whole number of at least 0."]
    own = "task.seed must be a whole number, got 0.25."
    assert errors(composed("task.seed=0.25")) == [own]
    assert errors(composed("seed=0.5", "task.seed=0.25")) == ["seed=0.5: give a whole number of at least 0.", own]


def test_an_interpolation_that_leads_nowhere():
    with pytest.raises(UserError) as refused:
        parse(changed("task.question", "${nowhere}"))
    assert str(refused.value) == "this configuration cannot be resolved: Interpolation key 'nowhere' not found"


def test_splits_as_a_word_and_named_twice():
    assert parse(composed("splits=train")).inference.splits == ("train",)
    assert parse(composed("splits=[test,pilot,test]")).inference.splits == ("test", "pilot")


def test_a_package_that_is_not_installed_is_not_taken_for_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import surely_not_installed\n")
    monkeypatch.setattr("patientdx.merge.__path__", [str(tmp_path)])
    with pytest.raises(UserError, match="needs the package surely_not_installed, which is not installed"):
        dotted("patientdx.merge.needy.needy")


@pytest.mark.parametrize("value", [True, 3, "x", [1, 2]])
def test_a_call_gives_its_arguments(value):
    call = Call("patientdx.core.functions.Call", json.dumps({"arguments": value}))
    assert call("patientdx.x").arguments == value


@pytest.mark.parametrize(
    ("override", "group"), [("merge=slrp", "merge"), ("base_model=gpt", "base_model"), ("task=sepsys", "task")]
)
def test_hydra_lists_what_there_is(override, group):
    with pytest.raises(MissingConfigException) as refused:
        composed(override)
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    wrong = override.split("=")[1]
    listed = "".join(f"\n\t{option}" for option in options)
    assert f"Could not find '{group}/{wrong}'\n\nAvailable options in '{group}':{listed}\n" in str(refused.value)


def test_hydra_refuses_a_key_that_is_not_there():
    with pytest.raises(ConfigCompositionException, match="Could not override 'lamda'"):
        composed("lamda=0.3")


def test_lambda_by_depth_and_by_filter():
    assert parse(composed("lambda=[0,0.5,1]")).weight == (0.0, 0.5, 1.0)
    found = parse(composed("lambda={self_attn:[0,1],rest:0.4}"))
    assert found.weight == (("self_attn", (0.0, 1.0)), ("*", 0.4))
    assert hash(found.merge.spec) == hash(parse(composed("lambda=0.1")).merge.spec)


def test_a_merge_alone_has_no_task():
    config = parse(composed("task=none", "save=/tmp/merged"))
    assert (config.task, config.save.folder) == (None, Path("/tmp/merged"))
