"""The real bundled models, fetched where the cache does not have them: known answers."""

from __future__ import annotations

import json

import pytest

from glotfuse.backbones.bundled import store as bundled

pytestmark = pytest.mark.slow


def test_e5_small_places_a_translation_near_its_source():
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = bundled.resolve("bundled:e5-small", progress=print)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = ["The economy is growing.", "ආර්ථිකය වර්ධනය වෙමින් පවතී.", "The cat sat on the mat."]
    batch = tokenizer(["query: " + text for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (hidden * mask).sum(1) / mask.sum(1)
    cosines = torch.nn.functional.cosine_similarity(means[:1], means[1:])
    assert cosines.tolist() == pytest.approx([0.91, 0.74], abs=0.005)


def test_e5_small_has_xlm_roberta_s_tokens():
    """Known ids of XLM-R; a zero-width joiner is a space in its normalisation map."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled.resolve("bundled:e5-small"))
    assert len(tokenizer) == 250_002
    assert tokenizer.model_max_length == 512
    assert tokenizer("Hello world")["input_ids"] == [0, 35378, 8999, 2]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (1, 3, 250_001)
    assert tokenizer.tokenize("ශ්\u200dරී") == tokenizer.tokenize("ශ් රී") == ["▁ශ්", "▁රී"]


def test_smollm2_knows_the_capital_of_france():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = bundled.resolve("bundled:smollm2-135m", progress=print)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    question = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**batch, do_sample=False, max_new_tokens=20)[0, batch["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    assert tokenizer.tokenize("in 1987  12") == ["in", "Ġ", "1", "9", "8", "7", "ĠĠ", "1", "2"]


def test_e5_small_reads_decomposed_text_like_composed_text():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled.resolve("bundled:e5-small"))
    pairs = {
        "e\u0323\u0300ko\u0323\u0301": "\u1eb9\u0300k\u1ecd\u0301",  # Yoruba
        "Vie\u0323\u0302t": "Vi\u1ec7t",
        "\u0995\u09c7\u09be\u09a8": "\u0995\u09cb\u09a8",  # Bengali
        "\u1112\u1161\u11ab\u1100\u116e\u11a8": "\ud55c\uad6d",  # Korean
        "\uff76\uff9e": "\u30ac",  # half-width Japanese
        "\u095e\u093f": "\u092b\u093c\u093f",  # Hindi nukta, which stays apart
    }
    for decomposed, composed in pairs.items():
        assert tokenizer.tokenize(decomposed) == tokenizer.tokenize(composed)
        assert "".join(tokenizer.tokenize(decomposed)) == "▁" + composed
