from dataclasses import replace

import pytest

from lightning_sd.critique.cache.keys import compute_key
from lightning_sd.critique.critics.prompts import FAITHFUL_SCRIBE, check_prompt, write_prompt
from tests.critique.cache.fakes import request


def test_default_prompt_holds_everything():
    text = write_prompt(FAITHFUL_SCRIBE, request(3, "my {braces}"), include_reference=True)
    assert "What is 3?" in text
    assert "my {braces}" in text
    assert "It is 3." in text
    assert "wrong or missing" in text


def test_reference_can_be_hidden_and_the_answer_stands_in_for_it():
    hidden = write_prompt(FAITHFUL_SCRIBE, request(3), include_reference=False)
    assert "It is 3." not in hidden
    bare = replace(request(3), question=replace(request(3).question, reference=None))
    assert "The right answer, for your eyes only: 3" in write_prompt(
        FAITHFUL_SCRIBE, bare, include_reference=True
    )
    nothing = replace(bare, question=replace(bare.question, answer=None))
    assert "for your eyes only" not in write_prompt(
        FAITHFUL_SCRIBE, nothing, include_reference=True
    )


@pytest.mark.parametrize(
    ("correct", "finished", "word"),
    [(True, True, "is right"), (False, False, "cut off"), (False, True, "wrong or missing")],
)
def test_the_critic_is_told_the_verdict(correct, finished, word):
    asked = request(3, "x", correct, finished)
    assert word in write_prompt("{question}{attempt}{verdict}", asked, include_reference=True)


def test_a_second_request_says_what_was_wrong_with_the_answer():
    again = replace(request(3), previous_refusal="it has no answer")
    assert "it has no answer" in write_prompt(FAITHFUL_SCRIBE, again, include_reference=True)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{question}", "attempt"),
        ("{attempt}", "question"),
        ("{question}{attempt}{solution}", "solution"),
        ("{question}{attempt}{", "brace"),
        ("{question}{attempt}{}", "brace"),
        ("{{question}}{attempt}", "question"),
    ],
)
def test_prompts_that_cannot_work_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        check_prompt(prompt)


def test_earlier_turns_are_part_of_the_question_and_of_the_key():
    first = ({"role": "user", "content": "Add 1 to 1."}, {"role": "assistant", "content": "3"})
    last = {"role": "user", "content": request(3).question.text}
    question = replace(request(3).question, messages=(*first, last))
    several = replace(request(3), question=question)
    prompt = write_prompt(FAITHFUL_SCRIBE, several, include_reference=False)
    assert "User: Add 1 to 1.\n\nAssistant: 3\n\nUser: What is 3?" in prompt
    assert compute_key({}, several) != compute_key({}, request(3))
    with_system = replace(question, messages=({"role": "system", "content": "x"}, last))
    assert compute_key({}, replace(several, question=with_system)) == compute_key({}, request(3))
