"""The short wordings that the lab's solver was taught; the configs hold the same."""

DESIGN = "{question}\nReference: {reference}\nWrite a rubric."
DESIGN_WITH_RUBRIC = "{question}\nTarget:\n{rubric}"
CONDITIONED = "{question}\nRubric:\n{rubric}\n{request}"
ANALYSE = "Say what matters."
ANSWER = "Now answer."
REFERENCE = "{question}\nReference: {reference}\nNow answer."
