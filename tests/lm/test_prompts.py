import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from patientdx.core.errors import UserError
from patientdx.lm.load import load_tokenizer
from patientdx.lm.prompts import Prompts, answer_tokens, tokenise

BEFORE, AFTER = "Patient, 71 years: ", "\nDoes the patient die in the intensive care unit? Answer with yes or no."
RECORD = "".join(f"heart rate {60 + i} bpm; " for i in range(40))
OPTIONS = [["Yes", "yes"], ["No", "no"]]


@pytest.fixture
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


@pytest.fixture
def adds_bos(tiny_base) -> PreTrainedTokenizerFast:
    """A tokenizer that puts its first token before every text by itself, as Llama's and Mistral's do."""
    tokenizer = load_tokenizer(tiny_base)
    bos = tokenizer.bos_token
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


def text(tokenizer, ids) -> str:
    return tokenizer.decode(ids)


@pytest.mark.parametrize("chat", [True, False])
def test_what_fits_is_whole(tokenizer, chat):
    prompts = tokenise(tokenizer, [(BEFORE, RECORD, AFTER), (BEFORE, "", AFTER)], OPTIONS, chat=chat)
    said = [text(tokenizer, ids) for ids in prompts.ids]
    if chat:
        frame = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        assert said == [frame.format(BEFORE + RECORD + AFTER), frame.format(BEFORE + AFTER)]
    else:
        assert said == [BEFORE + RECORD + AFTER, BEFORE + AFTER]
    assert (prompts.cut, prompts.limit) == (0, 4096)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("record", [RECORD, "Größe 3 µmol/l, Δ −2 °C; 心拍 88. " * 20], ids=["ascii", "wide"])
def test_cuts_only_inside_the_record_and_keeps_the_limit(tokenizer, chat, record):
    least = len(tokenise(tokenizer, [(BEFORE, "", AFTER)], OPTIONS, chat=chat).ids[0])
    whole = len(tokenise(tokenizer, [(BEFORE, record, AFTER)], OPTIONS, chat=chat).ids[0])
    frame = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n" if chat else "{}"
    start, end = (frame.format(BEFORE + "|" + AFTER)).split("|" + AFTER)[0], AFTER + frame.split("{}")[1]
    for limit in (least + 1, least + 2, least + 7, (least + whole) // 2, whole - 1, whole):
        prompts = tokenise(tokenizer, [(BEFORE, record, AFTER)], OPTIONS, chat=chat, limit=limit)
        said = text(tokenizer, prompts.ids[0])
        assert limit - 4 <= len(prompts.ids[0]) <= limit  # a wide character is several tokens, cut as one
        assert said.startswith(start)
        assert said.endswith(end)
        kept = said[len(start) : len(said) - len(end)]
        assert record.startswith(kept)
        assert (kept == record) == (limit == whole)
        assert prompts.cut == (limit < whole)


def test_counts_the_records_that_were_cut(tokenizer):
    parts = [(BEFORE, RECORD[:n], AFTER) for n in (10, 800, 20, 700, 900)]
    prompts = tokenise(tokenizer, parts, OPTIONS, limit=150)
    assert prompts.cut == 3
    assert max(map(len, prompts.ids)) == 150
    whole = tokenise(tokenizer, parts, OPTIONS)
    assert [a == b for a, b in zip(prompts.ids, whole.ids, strict=True)] == [True, False, True, False, False]


@pytest.mark.parametrize("too_small", [1, 5])
@pytest.mark.parametrize("record", [RECORD, "x", ""])
def test_a_prompt_that_does_not_fit_without_its_record(tokenizer, too_small, record):
    least = len(tokenise(tokenizer, [(BEFORE, "", AFTER)], OPTIONS).ids[0])
    with pytest.raises(UserError) as refused:
        tokenise(tokenizer, [(BEFORE, record, AFTER)], OPTIONS, limit=least - too_small)
    assert str(refused.value) == (
        f"a prompt has {least} tokens without its record, but {least - too_small} are the most that it may have. "
        "Set scoring.max_tokens higher, ask for fewer worked examples (task.shots) or new tokens (task.new_tokens), "
        "or use a model with a longer context."
    )


def test_a_tokenizer_without_a_chat_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(UserError) as refused:
        tokenise(tokenizer, [(BEFORE, RECORD, AFTER)], OPTIONS, chat=True)
    assert str(refused.value) == (
        f"the model is marked chat_template: true, but the tokenizer in {tokenizer.name_or_path} has no chat template. "
        "Set base_model.chat_template=false, or give a folder whose tokenizer has one."
    )
    assert tokenise(tokenizer, [(BEFORE, RECORD, AFTER)], OPTIONS, chat=False).ids


@pytest.mark.parametrize("limit", [4096, 120])
def test_one_bos_with_and_without_a_chat_template(adds_bos, limit):
    adds_bos.chat_template = "{{ bos_token }}" + "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    for chat in (True, False):
        prompts = tokenise(adds_bos, [(BEFORE, RECORD, AFTER)], OPTIONS, chat=chat, limit=limit)
        assert prompts.cut == (limit == 120)
        assert len(prompts.ids[0]) <= limit
        assert prompts.ids[0][0] == adds_bos.bos_token_id
        assert prompts.ids[0].count(adds_bos.bos_token_id) == 1
    assert answer_tokens(adds_bos, OPTIONS) == answer_tokens_without_bos(adds_bos)


def answer_tokens_without_bos(tokenizer):
    vocabulary = tokenizer.get_vocab()
    return tuple(tuple(vocabulary[word] for word in words) for words in OPTIONS)


def test_answers_are_the_variants_of_one_token_each_once(tokenizer):
    vocabulary = tokenizer.get_vocab()
    found = answer_tokens(tokenizer, [["Yes", " yes", "Yes", "Yes indeed"], ["no", " no"]])
    assert found == ((vocabulary["Yes"], vocabulary["Ġyes"]), (vocabulary["no"], vocabulary["Ġno"]))


def test_answers_of_several_tokens_only(tokenizer):
    with pytest.raises(UserError) as refused:
        answer_tokens(tokenizer, [["Yes"], ["Never ever", "At no time"]])
    assert str(refused.value) == (
        "none of the answers ['Never ever', 'At no time'] is a single token of this tokenizer, so the first token "
        "cannot tell the options apart. Give the task options that are one token each."
    )


@pytest.mark.parametrize("options", [[["Yes", "no"], ["No", "no"]], [["Yes", "no"], ["yes"], ["no"]]])
def test_options_that_share_an_answer(tokenizer, options):
    with pytest.raises(UserError) as refused:
        answer_tokens(tokenizer, options)
    assert str(refused.value) == (
        f"the options {options} share the answers ['no']: nothing would tell them apart. "
        "Give each option answers of its own."
    )


@pytest.mark.parametrize(
    ("ids", "prefix"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),  # at least one token of each prompt is left
        ([[1, 2], [1, 2, 3, 4]], 1),
        ([[1], [1, 2]], 0),
        ([[1, 2, 3], [4, 2, 3]], 0),
        ([[1, 2, 3]], 2),
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 9, 3, 4]], 1),
    ],
)
def test_the_longest_common_prefix(ids, prefix):
    assert Prompts(tuple(map(tuple, ids)), ((1,), (2,)), 0, 100).prefix == prefix


def test_two_tokenizations_never_share_a_fingerprint():
    def prompts(ids, options=((1,), (2,))):
        return Prompts(ids, options, 0, 100).fingerprint

    made = [prompts(((1, 2),)), prompts(((1,), (2,))), prompts(((12,),)), prompts(((1, 2),), ((1,), (3,)))]
    assert len({*made, prompts(((2, 1),))}) == 5
    assert made[0] == prompts(((1, 2),))
    assert len(made[0]) == 64


def test_a_record_whose_first_word_takes_no_token_more_is_kept_that_far(tokenizer):
    # A text's last space is a token of its own, and part of the word where one follows.
    least, whole = (len(tokenise(tokenizer, [(BEFORE, r, AFTER)], OPTIONS).ids[0]) for r in ("", RECORD))
    for limit in range(least, whole):
        [ids] = tokenise(tokenizer, [(BEFORE, RECORD, AFTER)], OPTIONS, limit=limit).ids
        assert len(ids) == limit
        assert f"{BEFORE}hea" in text(tokenizer, ids)
