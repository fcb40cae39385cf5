"""English texts and answers that the LM writes itself.

`python -m benchmarks.first_stage.texts --out FOLDER --texts 40000 --seed 1` has the bundled LM write short texts on
known subjects (FOLDER/texts-1.jsonl: text, topic, subject, or feeling) and, with `--english english.tsv --answers
12000`, answer instructions about plain English texts (FOLDER/answers-1.jsonl: text, instruction, answer). A GPU writes
1,000 a second, two CPU cores 4. Files are appended to batch by batch; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.first_stage.prompts import (
    ANSWERED_BY_LM,
    FEELINGS,
    KINDS,
    THINGS,
    TOPICS,
    WRITE,
    WRITE_OPINION,
)
from glotfuse.backbones import LM, BackboneOptions, load_lm

_OPINIONS = 0.12
"""Share of the texts that give an opinion."""


def requests(rng: random.Random) -> Iterator[tuple[str, dict[str, str]]]:
    """Endless instructions to write something, each with what is known of the text beforehand."""
    subjects = [(topic, subject) for topic, listed in TOPICS.items() for subject in listed.split(";")]
    while True:
        if rng.random() < _OPINIONS:
            name, feeling = rng.choice(list(FEELINGS.items()))
            thing = rng.choice(THINGS.split(";"))
            yield rng.choice(WRITE_OPINION).format(feeling=feeling, thing=thing), {"feeling": name}
        else:
            topic, subject = rng.choice(subjects)
            wanted = rng.choice(WRITE).format(subject=subject, kind=rng.choice(KINDS))
            yield wanted, {"topic": topic, "subject": subject}


def questions(path: Path, rng: random.Random) -> Iterator[tuple[str, dict[str, str]]]:
    """Endless instructions about texts of twelve words and more, before the texts as the chat prompt has them."""
    rows = [
        line.split("\t")[0] for line in path.read_text("utf8").splitlines()[1:] if "\tgum" in line or "\tUD" in line
    ]
    texts = [text for text in rows if len(text.split()) >= 12]
    while True:
        text, instruction = rng.choice(texts), rng.choice(ANSWERED_BY_LM)
        yield f"{instruction}\n\n{text}", {"text": text, "instruction": instruction}


@torch.inference_mode()
def written(lm: LM, asked: Sequence[str], max_new_tokens: int, **sampling: Any) -> list[str]:
    """The LM's answers to user turns."""
    tokenizer = lm.tokenizer
    turns = [[{"role": "user", "content": content}] for content in asked]
    prompts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    read = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    ids = lm.model.generate(
        input_ids=read["input_ids"].to(lm.device),
        attention_mask=read["attention_mask"].to(lm.device),
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.eos_token_id,
        **sampling,
    )
    return list(tokenizer.batch_decode(ids[:, read["input_ids"].shape[1] :], skip_special_tokens=True))


def fill(lm: LM, path: Path, asked: Iterator[tuple[str, dict[str, str]]], options: argparse.Namespace) -> None:
    """Appends to a file until it has as many rows as wanted."""
    answering = path.name.startswith("answers")
    wanted = options.answers if answering else options.texts
    count = len(path.read_text("utf8").splitlines()) if path.exists() else 0
    sampling = {"do_sample": False} if answering else {"do_sample": True, "temperature": 0.9, "top_p": 0.95}
    started, key = time.monotonic(), "answer" if answering else "text"
    while count < wanted and time.monotonic() - started < options.seconds:
        batch = [next(asked) for _ in range(min(options.batch_size, wanted - count))]
        answers = written(lm, [content for content, _ in batch], 40 if answering else 56, **sampling)
        with path.open("a", encoding="utf8") as handle:
            for (_, known), answer in zip(batch, answers, strict=True):
                handle.write(json.dumps({**known, key: answer.strip()}, ensure_ascii=False) + "\n")
        count += len(batch)
        print(f"{path.name}: {count} of {wanted}, {time.monotonic() - started:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_stage.texts", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--english", type=Path, help="TSV with columns text and source, for --answers")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=1e9, help="most time for each of the two files")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.answers and options.english is None:
        raise SystemExit("Expected --english with --answers: the texts that are asked about.")
    options.out.mkdir(parents=True, exist_ok=True)
    lm = load_lm("bundled:smollm2-135m", BackboneOptions(dtype="bfloat16"))
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    if options.answers:
        fill(lm, options.out / f"answers-{options.seed}.jsonl", questions(options.english, rng), options)
    fill(lm, options.out / f"texts-{options.seed}.jsonl", requests(rng), options)


if __name__ == "__main__":
    main()
