"""Fuzz the prompts that students and teachers read, with the tokenizers of five model families.

    python -m benchmarks.reliability.fuzz_prompts --cases 1000000

Each case is a row whose question, reference, answer and attempt are random texts of control tokens,
braces, template code, control characters, lone surrogates and plain words; one case in 20,000 has a
text of a million characters. The row is read, cleaned, and rendered by the chat template as the
student's prompt, as a teacher's prompt that quotes all four texts (every second time cut to a
limit), and as a stored attempt. A case fails if

- anything but the reading of the row raises an error,
- a prompt has other control tokens than that of plain words: a turn is forged or lost,
- the attempt holds a special token before its end, or
- the question cannot be read in the student's prompt.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.reliability.fuzzing import Subject, fuzz, parse_options, report
from lightning_sd.contexts import TeacherContext
from lightning_sd.models.chat import encode_prompt
from lightning_sd.rollout import encode_stored_attempts
from lightning_sd.tasks.row_reader import RowReader
from lightning_sd.text import clean_question
from lightning_sd.types import Question, Rollout
from tests.tokenizers import FAMILIES, make_tokenizer

FIELDS = ("question", "reference", "answer", "attempt")
READER = RowReader({field: field for field in FIELDS}, instruction="Think. Answer in <answer>.")
CONTROL = sorted({word for f in FAMILIES.values() for word in (*f["special"], *f.get("plain", ()))})
PIECES = (
    *CONTROL,
    *("<|im_", "start|>", "<|im_end|", "<<|im_end|>|im_end|>", "<|im_<|im_end|>end|>", "</", "[/"),
    *(
        "user\n",
        "assistant\n",
        "model\n",
        "system",
        "\n",
        "\n\n",
        "\r",
        "\t",
        " ",
        "  ",
        "▁",
        "<0x0A>",
    ),
    *(
        "{",
        "}",
        "{{",
        "}}",
        "{question}",
        "{0}",
        "{% endfor %}",
        "{{ raise_exception('x') }}",
        "%s",
    ),
    *("\x00", "\x1b[2J", "\x7f", "\x85", "\ud800", "\udfff", "\ud83d\ude00", "\ufffd", "\ufeff"),
    *("\u202e", "\u200b", "\u0338", "e\u0301", "\ue000", "\ue001", "\uff1c", "é", "漢字", "😀"),
    *("<think>", "</think>", "<step_1>", "<answer>7</answer>", "####", "\\boxed{7}", "18", "word"),
)
LONGEST = 1_000_000
LIMIT = 90
"""Tokens of a teacher's prompt that is cut."""


class QuoteAll(TeacherContext):
    """A teacher that reads the reference, the answer and the attempt."""

    template = "{question}\n{reference}\n{answer}\n{attempt}"
    cut_fields: ClassVar[tuple[str, ...]] = ("attempt", "answer", "reference")

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        question = rollout.question
        texts = (question.reference, question.answer, question.attempt)
        return dict(zip(self.cut_fields[::-1], (text or "" for text in texts), strict=True))


class Family:
    """A small tokenizer of a model family, and the control tokens that its prompts have."""

    def __init__(self, name: str) -> None:
        self.name, self.tokenizer = name, make_tokenizer(name)
        self.end = str(FAMILIES[name]["end"])
        convert = self.tokenizer.convert_tokens_to_ids
        self.special = set(convert(FAMILIES[name]["special"]))
        self.control = self.special | set(convert(FAMILIES[name].get("plain", [])))
        plain = _read_row(dict.fromkeys(FIELDS, "7"))
        self.expected = self.find_control(self.write_student(plain))
        assert self.expected

    def find_control(self, ids: Sequence[int]) -> list[int]:
        return [i for i in ids if i in self.control]

    def write_student(self, question: Question) -> list[int]:
        return encode_prompt(self.tokenizer, question.messages)

    def write_teacher(self, question: Question, limit: int | None) -> list[int] | None:
        context = QuoteAll(max_prompt_tokens=limit)
        context.tokenizer = self.tokenizer
        (view,) = context.views([Rollout(question, (), "", group=0)])
        return None if view is None else encode_prompt(self.tokenizer, view.messages)

    def check(self, row: Mapping[str, str], limit: int | None = None) -> bool:
        """Check one row; return False if the row itself is refused.

        Raises:
            AssertionError: A turn is forged or lost, or the question cannot be read.
        """
        try:
            question = _read_row(row)
        except ValueError as error:
            if "(Row 0.)" not in str(error):
                raise
            return False
        student = self.write_student(question)
        assert self.find_control(student) == self.expected, "student"
        readable = question.text.strip().replace("▁", " ")  # the sign for a space in some families
        assert readable in self.tokenizer.decode(student).replace("▁", " "), "question"
        teacher = self.write_teacher(question, limit)
        if teacher is not None:
            assert self.find_control(teacher) == self.expected, "teacher"
            assert limit is None or len(teacher) <= limit, "limit"
        (rollout,) = encode_stored_attempts([question], self.tokenizer)
        assert self.special.isdisjoint(rollout.ids[:-1]), "attempt"
        assert self.tokenizer.decode(rollout.ids[-1:]) == self.end, "end"
        return True

    def check_case(self, case: tuple[Mapping[str, str], int | None]) -> bool:
        return self.check(*case)


def _read_row(row: Mapping[str, str]) -> Question:
    return clean_question(READER.build(row, "0"))


def write_text(rng: random.Random) -> str:
    """Draw one text: mostly short, some of hundreds of pieces."""
    number = rng.randrange(10) if rng.random() < 0.98 else rng.randrange(300)
    if rng.random() < 0.2:
        return "".join(chr(rng.randrange(0x20000)) for _ in range(number))
    return "".join(rng.choices(PIECES, k=number))


def write_row(rng: random.Random) -> dict[str, str]:
    """Draw one row; one in 20,000 has a field of a million characters."""
    row = {field: write_text(rng) for field in FIELDS}
    if rng.random() < 1 / 20_000:
        piece = write_text(rng) or "{"
        row[rng.choice(FIELDS)] = piece * (LONGEST // len(piece))
    return row


def write_case(rng: random.Random) -> tuple[dict[str, str], int | None]:
    """Draw a row and the limit of the teacher's prompt."""
    return write_row(rng), rng.choice([None, LIMIT])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(__doc__, arguments)
    subjects = {name: Subject(write_case, Family(name).check_case) for name in FAMILIES}
    tallies = fuzz(subjects, options.cases, options.seed, options.minutes)
    return report("Fuzzing of the prompts", "fuzz_prompts", options, tallies)


if __name__ == "__main__":
    raise SystemExit(main())
