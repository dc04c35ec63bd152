"""Default wording of the teachers' prompts; YAML may replace each of them.

The embedded solver was trained with the first two. If they change, train it again by its recipe.
"""

STEP_ALIGNED = "{question}\nHere is a checked solution, step by step:\n{critique}\nNow solve it."
REFERENCE = "{question}\nHere is a reference solution:\n{reference}\nNow solve it."

SIBLING = "{question}{solution}{attempt}{feedback}\n\nCorrectly solve the original question."
SIBLING_SOLUTION = "\n\nCorrect solution:\n{solution}"
SIBLING_ATTEMPT = "\n\nYour earlier attempt:\n{attempt}"
SIBLING_FEEDBACK = (
    "\n\nThe following is feedback from your unsuccessful earlier attempt:\n{feedback}"
)

DEMONSTRATION = (
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process."
)

CONTRASTIVE = """\
{question}

A reference solution of this problem:
--- reference solution ---
{hint}
Correct final answer: {answer}
--- end of the reference solution ---
Read it until each of its steps is clear to you. Then solve the problem step by step yourself."""
