"""One file of texts, instructions and answers out of plain English text and what the LM wrote.

`python -m benchmarks.first_stage.mixture --english english.tsv --written FOLDER --out FOLDER` reads the texts of
`benchmarks.first_stage.texts`, cleans them, and writes train.jsonl and dev.jsonl with the columns text, instruction and
answer, which `recipes/first_stage.yaml` reads. No text is in both.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.first_stage import prompts

Row = tuple[str, str, str]
"""Text, instruction, answer."""

_VARIANTS = 400
"""Different instructions about the topic, each with options of its own."""
_DEV_SENTENCES, _DEV_TOPICS = 250, 150
_ENDS = (".", "!", "?", '."', ".'", '!"', '?"')
_MOST_WORDS = 45
_SPEAKS_OF_ITSELF = re.compile(
    r"\b(here (is|are|'s)|sure|as an ai|certainly|sentences?|i('m| am) (sorry|here)|i can|of course)\b", re.I
)


def read_english(path: Path) -> dict[str, list[str]]:
    """Texts by source."""
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf8").splitlines()[1:]:
        text, _, source = line.rpartition("\t")
        found.setdefault(source, []).append(" ".join(text.split()))
    return found


def read_written(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of all files of one name."""
    return [json.loads(line) for path in sorted(folder.glob(f"{name}-*.jsonl")) for line in path.open(encoding="utf8")]


def cleaned(text: str) -> str | None:
    """Whole sentences of an LM's text, at most 45 words; None where little is left or it speaks of its own writing."""
    text = " ".join(text.replace("*", " ").replace("#", " ").split())
    text = re.sub(r"^(\d+[.)]|[A-Z]:|-)\s+", "", text).strip("\"'“” ")
    sentences = re.split(r"(?<=[.!?])\s+", text)
    kept: list[str] = []
    for sentence in sentences:
        if len(" ".join([*kept, sentence]).split()) > _MOST_WORDS or not sentence.endswith(_ENDS):
            break
        kept.append(sentence)
    whole = " ".join(kept)
    words = whole.split()
    if len(words) < 6 or _SPEAKS_OF_ITSELF.search(whole) or not whole.isascii() or _repeats(words):
        return None
    return whole


def _repeats(words: Sequence[str]) -> bool:
    threes = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return len(set(threes)) < 0.85 * len(threes)


def topic_instructions(rng: random.Random) -> list[tuple[str, dict[str, str]]]:
    """Instructions with options, and for each topic that is among them its word there."""
    found = []
    for _ in range(_VARIANTS):
        topics = rng.sample(list(prompts.TOPICS), rng.randint(4, 9))
        names = {topic: rng.choice(prompts.OTHER_NAMES.get(topic, (topic,))) for topic in topics}
        if len(set(names.values())) < len(names):
            continue
        listed = list(names.values())
        if rng.random() < 0.3:
            names = {topic: name.capitalize() for topic, name in names.items()}
            listed = list(names.values())
        found.append((rng.choice(prompts.TOPIC).format(options=", ".join(listed)), names))
    return found


def about_topics(written: Iterable[tuple[str, dict[str, str]]], rng: random.Random) -> Iterator[Row]:
    """The topic, the subject or the opinion of texts that the LM wrote."""
    variants = topic_instructions(rng)
    by_topic = {topic: [each for each in variants if topic in each[1]] for topic in prompts.TOPICS}
    for text, known in written:
        if "feeling" in known:
            names = list(prompts.FEELINGS)
            rng.shuffle(names)
            yield text, rng.choice(prompts.OPINION).format(options=", ".join(names)), known["feeling"]
        elif rng.random() < 0.15:
            yield text, rng.choice(prompts.SUBJECT), known["subject"]
        else:
            instruction, names = rng.choice(by_topic[known["topic"]])
            yield text, instruction, names[known["topic"]]


def joined(sentences: Sequence[str], count: int, rng: random.Random) -> Iterator[str]:
    """Two or three short sentences in one text."""
    short = [text for text in sentences if len(text.split()) <= 14]
    for _ in range(count):
        yield " ".join(rng.sample(short, rng.choice((2, 2, 3))))


def build(
    english: dict[str, list[str]], written: list[dict[str, str]], answers: list[dict[str, str]], seed: int
) -> tuple[list[Row], list[Row]]:
    """Training and development rows."""
    rng = random.Random(seed)
    plain = [text for source in ("gum", "UD_English-EWT") for text in english[source] if 4 <= len(text.split()) <= 60]
    rng.shuffle(plain)
    lm_texts = list({text: row for row in written if (text := cleaned(row["text"]))}.items())
    rng.shuffle(lm_texts)
    topical = [pair for pair in lm_texts if "topic" in pair[1]]
    held_out = {text for text, _ in topical[:_DEV_TOPICS]}
    lm_texts = [pair for pair in lm_texts if pair[0] not in held_out]
    dev = [(text, prompts.READ, text) for text in plain[:_DEV_SENTENCES]]
    dev += [(text, prompts.READ, text) for text in list(held_out)[: _DEV_TOPICS // 2]]
    dev += about_topics(topical[:_DEV_TOPICS], rng)
    plain = plain[_DEV_SENTENCES:]
    dev_texts = {text for text, _, _ in dev}

    examples = [text for text in english["wordnet-example"] if len(text.split()) >= 4]
    pairs = [tuple(text.split(": ", 1)) for text in english["wordnet-definition"] if ": " in text]
    rng.shuffle(pairs)
    rows: list[Row] = []
    rows += [(text, prompts.READ, text) for text in plain * 3]
    rows += [(text, prompts.READ, text) for text in examples]
    rows += [(text, prompts.READ, text) for text in joined([*examples, *plain], 30_000, rng)]
    rows += [(text, prompts.READ, text) for text, _ in lm_texts * 2]
    rows += [
        (text, prompts.READ, text) for text in (meaning[:1].upper() + meaning[1:] for _, meaning in pairs[:30_000])
    ]
    rows += [(meaning, rng.choice(prompts.WORD), word) for word, meaning in pairs[30_000:50_000]]
    rows += [(word, rng.choice(prompts.MEANING), meaning) for word, meaning in pairs[50_000:58_000]]
    rows += about_topics(lm_texts, rng)
    rows += [
        (row["text"], row["instruction"], answer)
        for row in answers
        if (answer := cleaned(row["answer"]) or _short(row["answer"])) and row["text"] not in dev_texts
    ]
    rows = [row for row in rows if row[0] not in dev_texts and row[0].strip() and row[2].strip()]
    rng.shuffle(rows)
    return rows, dev


def of_kind(rows: Sequence[Row], kind: str, seed: int) -> list[Row]:
    """All rows; `long`, those that end the first training: 20,000 to be translated and 7,000 others, of eight words and
    more; or `topics`, those of the second: 3,300 about topic or sentiment and 1,300 to be translated.
    """
    rng = random.Random(seed)
    if kind == "all":
        return list(rows)
    rows = [row for row in rows if len(row[0].split()) >= 8]
    read = [row for row in rows if row[1] == prompts.READ]
    known = set(prompts.ANSWERED_BY_LM) | set(prompts.SUBJECT) | set(prompts.WORD) | set(prompts.MEANING)
    others = [row for row in rows if row[1] != prompts.READ and (kind == "long" or row[1] not in known)]
    numbers = (20_000, 7_000) if kind == "long" else (1_300, 3_300)
    parts = zip((read, others), numbers, strict=True)
    found = [row for part, number in parts for row in rng.sample(part, min(number, len(part)))]
    rng.shuffle(found)
    return found


def _short(answer: str) -> str | None:
    """An answer of a few words, such as a title."""
    line = answer.strip().split("\n")[0].strip("\"'* ")
    return line if 0 < len(line.split()) <= 15 and not _SPEAKS_OF_ITSELF.search(line) else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_stage.mixture", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--english", type=Path, required=True, help="TSV with columns text and source")
    parser.add_argument("--written", type=Path, required=True, help="what benchmarks.first_stage.texts made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=("all", "long", "topics"), default="all", help="see of_kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    written, answers = (read_written(options.written, name) for name in ("texts", "answers"))
    rows, dev = build(read_english(options.english), written, answers, options.seed)
    rows = of_kind(rows, options.kind, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows), ("dev", dev)):
        with (options.out / f"{name}.jsonl").open("w", encoding="utf8") as handle:
            for text, instruction, answer in part:
                row = {"text": text, "instruction": instruction, "answer": answer}
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{name}: {len(part)} rows, {len({text for text, _, _ in part})} texts")


if __name__ == "__main__":
    main()
