"""Where a prompt ends, with every kind of chat template and of tokenizer."""

import datetime
import json

import pytest
import transformers.utils.chat_template_utils
from tokenizers.processors import TemplateProcessing

from patientdx.core.errors import UserError
from patientdx.lm.chat import check_template, encode, render
from patientdx.lm.load import load_tokenizer
from patientdx.lm.multiple_choice import tokenise_options
from patientdx.lm.prompts import tokenise

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
OPENS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
THINKS = TURNS + (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% else %}{{ '<think>\n' }}{% endif %}{% endif %}"
)
DATED = "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}" + TURNS + OPENS
PARTS = [("", "Age 71, female.", "\n\nDid this patient die? Answer Yes or No.")]
OPTIONS = (("Yes", " Yes"), ("No", " No"))


@pytest.fixture
def with_template(tiny_base, tmp_path):
    """Loads the tiny tokenizer with another template and other arguments of it."""

    def load(template, **arguments):
        tokenizer = load_tokenizer(tiny_base)
        tokenizer.chat_template = None
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        return load_tokenizer(tmp_path, arguments)

    return load


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        (TURNS + OPENS, {}),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + TURNS + OPENS, {}),
        (TURNS.replace("m['content']", "m['content'] | trim") + OPENS, {}),
        (THINKS, {"enable_thinking": False}),
        ([{"name": "default", "template": TURNS + OPENS}, {"name": "rag", "template": TURNS}], {}),
        ([{"name": "a", "template": TURNS + OPENS}, {"name": "b", "template": TURNS}], {"chat_template": "a"}),
        ("{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}", {}),
    ],
)
def test_a_prompt_ends_where_an_answer_begins(with_template, template, arguments):
    tokenizer = with_template(template, **arguments)
    check_template(tokenizer, chat=True)
    text = render(tokenizer, "".join(PARTS[0]), chat=True)
    assert text.endswith(("assistant\n", "</think>\n\n", "[/INST]"))
    assert (
        tokenise(tokenizer, PARTS, OPTIONS).ids[0] == tokenise_options(tokenizer, PARTS, [["A", "B"]], chat=True).ids[0]
    )


@pytest.mark.parametrize(
    ("template", "arguments", "words"),
    [
        (TURNS, {}, "an answer would begin with '<|im_start|>assistant' instead"),
        (THINKS, {}, "it opens <think>"),
        ("{% for m in messages %}{{ m['content'] }", {}, "cannot render"),
        ("{{ raise_exception('a system prompt is needed') }}", {}, "a system prompt is needed"),
        ([{"name": "tool_use", "template": TURNS}, {"name": "rag", "template": TURNS}], {}, "templates tool_use, rag"),
    ],
)
def test_a_template_behind_which_no_answer_begins_is_refused(with_template, template, arguments, words):
    tokenizer = with_template(template, **arguments)
    with pytest.raises(UserError) as refused:
        tokenise(tokenizer, PARTS, OPTIONS)
    assert words in str(refused.value)
    assert "template_args" in str(refused.value)
    with pytest.raises(UserError):
        tokenise_options(tokenizer, PARTS, [["A", "B"]], chat=True)


def test_the_date_in_a_template_is_pinned(with_template, monkeypatch):
    tokenizer = with_template(DATED)
    before = tokenise(tokenizer, PARTS, OPTIONS)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + datetime.timedelta(days=400)

    monkeypatch.setattr(transformers.utils.chat_template_utils, "datetime", Later)
    assert "26 Jul 2024" in tokenizer.decode(before.ids[0])
    assert tokenise(tokenizer, PARTS, OPTIONS).fingerprint == before.fingerprint


def test_no_special_token_follows_a_prompt(tiny_base):
    """As of a tokenizer with add_eos_token, for every way in which a text is made into tokens."""
    plain, ends = load_tokenizer(tiny_base), load_tokenizer(tiny_base)
    around = [("<|im_start|>", ends.bos_token_id), ("<|im_end|>", ends.eos_token_id)]
    ends._tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A <|im_end|>", special_tokens=around)
    (ids,) = encode(ends, ["Age 71"], chat=False)
    assert ids == [ends.bos_token_id, *plain("Age 71", add_special_tokens=False)["input_ids"]]
    assert encode(ends, [], chat=False) == []
    options = tokenise_options(ends, PARTS, [["A", "B"]], chat=False)
    assert options.continuations == tokenise_options(plain, PARTS, [["A", "B"]], chat=False).continuations
    assert tokenise(ends, PARTS, OPTIONS, chat=False).ids[0][-1] != ends.eos_token_id
    assert tokenise(ends, PARTS, OPTIONS, chat=True).ids == tokenise(plain, PARTS, OPTIONS, chat=True).ids
