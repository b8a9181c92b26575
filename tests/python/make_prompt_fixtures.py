"""Tiny tokenizers of the kinds that people's folders hold, and the ids and texts that transformers gives for them.

    tests/python/.venv/bin/python tests/python/make_prompt_fixtures.py

Writes tests/fixtures/prompts/<name>/: tokenizer.json, tokenizer_config.json, expected.json. Needs transformers.
"""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "fixtures" / "prompts"
STORIES = [story.strip() for story in (ROOT / "stories" / "train.txt").read_text().split("<|endoftext|>")]

LLAMA_3 = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
]
PROMPTS = [
    "", " ", "Once upon a time", " Once upon a time", "Once upon a time ", "the  two   spaces\n\nand lines",
    "tea, très bien: 🐢🐌 and 昔々 👩‍👩‍👧‍👦", "a<s>b</s> c", "<|endoftext|>", "x<|im_end|>\ny", "- milk",
    "<|start_header_id|>system<|end_header_id|>\n\nYou are kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|begin_of_text|>Once", "<s>Once", "<s> Once upon", "<|begin_of_text|>", "<s>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "one<|tool|>two <|tool|> three",
    "<｜end▁of▁sentence｜>", "Hi<｜end▁of▁sentence｜>", "Hi</s>",
]


def byte_level(special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(STORIES, trainer)
    return tokenizer


def begins_with(tokenizer, bos, after=()):
    pieces = [bos, "$A", *after]
    ids = [(token, tokenizer.token_to_id(token)) for token in pieces if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=pieces, special_tokens=ids)
    return tokenizer


def sentencepiece():
    """As Llama 2's: bytes as <0x..>, a blank put before a text and taken off again."""
    vocabulary = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    letters = Tokenizer(models.BPE(unk_token="<unk>"))
    letters.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>"], show_progress=False)
    letters.train_from_iterator(STORIES, trainer)
    learnt = json.loads(letters.to_str())["model"]
    ids = {token: index for index, token in enumerate(vocabulary)}
    for token in sorted(learnt["vocab"], key=learnt["vocab"].get):
        ids.setdefault(token, len(ids))
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = letters.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ["<unk>", "<s>", "</s>"]])
    return begins_with(tokenizer, "<s>")


def metaspace():
    """As newer conversions have it."""
    tokenizer = sentencepiece()
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="first", split=False)]
    )
    return tokenizer


def kinds():
    llama3 = begins_with(byte_level(LLAMA_3), "<|begin_of_text|>")
    chatml = byte_level(["<|im_start|>", "<|im_end|>"])
    chatml.add_tokens([AddedToken("<|tool|>", special=False, lstrip=True, rstrip=True)])
    deepseek = byte_level(["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    begins_with(deepseek, "<｜begin▁of▁sentence｜>")
    both = begins_with(byte_level(["<s>", "</s>"]), "<s>", ["</s>"])
    return {
        "llama-3": (llama3, "<|begin_of_text|>", "<|eot_id|>"),
        "llama-2": (sentencepiece(), "<s>", "</s>"),
        "metaspace": (metaspace(), "<s>", "</s>"),
        "gpt-2": (byte_level(["<|endoftext|>"]), None, "<|endoftext|>"),
        "chatml": (chatml, None, "<|im_end|>"),
        "deepseek": (deepseek, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        "bos-and-eos": (both, "<s>", "</s>"),
    }


def once(ids, prefix, suffix, text):
    """What was added is not added again where the text has it: the one place where this is not transformers'."""
    if not text:
        return ids
    own = ids[len(prefix) : len(ids) - len(suffix)]
    return (ids[: len(prefix)] if own[: len(prefix)] != prefix else []) + own + (
        suffix if not suffix or own[-len(suffix) :] != suffix else []
    )


def prompt_cases(tokenizer):
    empty = tokenizer("")["input_ids"]
    prefix, suffix = empty[:1], empty[1:]
    cases = []
    for text in PROMPTS:
        ids = tokenizer(text)["input_ids"]
        cases.append({
            "text": text,
            "ids": once(ids, prefix, suffix, text),
            "doubled": ids != once(ids, prefix, suffix, text),
            "without_special_tokens": tokenizer(text, add_special_tokens=False)["input_ids"],
            "plain": tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"],
        })
    return cases


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def stream_cases(tokenizer, random):
    """Prompts, what follows, and the text that a reader of the prompt has yet to read."""
    cases = []
    texts = [text for text in PROMPTS if text] + ["🐢🐌🐢", "昔々、あるところに", "naïve café", "  leading"]
    for text in texts:
        for following in [" was a snail. 🐢", "昔々", "é", ", and", "  two", "🐌"]:
            prompt = tokenizer(text)["input_ids"]
            ids = tokenizer(text + following, add_special_tokens=False)["input_ids"]
            own = tokenizer(text, add_special_tokens=False)["input_ids"]
            if ids[: len(own)] == own:
                cases.append((prompt, ids[len(own) :]))
    whole = len(cases)
    for _ in range(200):
        ids = [random.randrange(len(tokenizer)) for _ in range(random.randrange(1, 24))]
        cut = random.randrange(len(ids))
        cases.append((ids[:cut], ids[cut:]))
    found = []
    for index, (prompt, new) in enumerate(cases):
        known, all_ = decode(tokenizer, prompt), decode(tokenizer, prompt + new)
        same = 0
        while same < min(len(known), len(all_)) and known[same] == all_[same]:
            same += 1
        assert index >= whole or known == all_[:same], (known, all_)
        found.append({"prompt": prompt, "new": new, "text": all_[same:], "all": all_})
    return found


def main():
    for name, (tokenizer, bos, eos) in kinds().items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        named = {key: token for key, token in [("bos_token", bos), ("eos_token", eos)] if token}
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
        wrapped = PreTrainedTokenizerFast.from_pretrained(folder)
        expected = {"prompts": prompt_cases(wrapped), "streams": stream_cases(wrapped, random.Random(7))}
        (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")
        print(name, len(wrapped), sum(case["doubled"] for case in expected["prompts"]), "doubled")


main()
