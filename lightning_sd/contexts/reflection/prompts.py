"""Default wording of RESD's prompts; YAML may replace each of them."""

TEACHER = """\
You are an expert who solves problems with the help of what was learned from earlier attempts. \
Whatever stands below the problem may help; some of it may be beside the point.

Problem:
{question}

{playbook}{trial}{feedback}{reflection}{solution}\
Now solve the problem correctly, from its beginning to its end."""
"""The teacher's prompt; each field except the question is a block, which may be empty."""

BLOCKS = {
    "playbook": "Lessons of other problems, with how often each helped or harmed:\n{playbook}\n\n",
    "trial": "An earlier attempt at this problem, which failed:\n{trial}\n\n",
    "feedback": "What the environment said about that attempt:\n{feedback}\n\n",
    "reflection": "A reflection on that attempt:\n{reflection}\n\n",
    "solution": "A solution of this problem that succeeded:\n{solution}\n\n",
}
"""Wording around each field that is not empty."""

REFLECT = """\
An attempt at a problem has failed. Find out why, and what would have been right.

Problem:
{question}

The attempt:
{attempt}

What the environment said:
{feedback}

Lessons that were known:
{playbook}

Answer with one JSON object and nothing else, with these fields:
"reasoning": your analysis;
"error_identification": where the attempt went wrong first, and how;
"root_cause_analysis": why it went wrong there;
"correct_approach": how to do it instead, step by step;
"key_insight": what to remember for other problems, in one sentence;
"bullet_tags": a list of {{"id": ..., "tag": ...}} for the lessons above that mattered here, the \
tag one of "helpful", "harmful" and "neutral"; an empty list if none did."""
"""Fields: ``question``, ``attempt``, ``feedback``, ``playbook``."""

CURATE = """\
You keep a list of lessons for solving problems. Later problems will be solved with the list, but \
without any feedback, so a lesson must be of use by itself.

The list so far:
{playbook}

A problem on which an attempt failed:
{question}

What was found about it:
{reflection}

Decide what the list lacks. Add only what it does not already say, and nothing that helps with \
this one problem alone; adding nothing is fine. Answer with one JSON object and nothing else, with \
these fields:
"reasoning": your considerations;
"operations": a list of {{"type": "ADD", "section": ..., "content": ...}}, each content one lesson \
in a sentence or two, the section one of: {sections}."""
"""Fields: ``playbook``, ``question``, ``reflection``, ``sections``."""
