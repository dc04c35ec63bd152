"""The wording of the teachers' prompts: data that YAML may replace, kept apart from the code.

The embedded solver was trained on the first two, so a change here needs its recipe run again.
"""

STEP_ALIGNED = "{question}\nHere is a checked solution, step by step:\n{critique}\nNow solve it."
REFERENCE = "{question}\nHere is a reference solution:\n{reference}\nNow solve it."
