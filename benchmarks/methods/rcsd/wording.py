"""The short prompts that the lab's solver was trained on; the configs hold the same text."""

DESIGN = "{question}\nReference: {reference}\nWrite a rubric."
DESIGN_WITH_RUBRIC = "{question}\nTarget:\n{rubric}"
CONDITIONED = "{question}\nRubric:\n{rubric}\n{request}"
ANALYZE = "Say what matters."
ANSWER = "Now answer."
REFERENCE = "{question}\nReference: {reference}\nNow answer."
