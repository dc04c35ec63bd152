"""A griffe extension: turns the docstrings' reStructuredText into Markdown for the API pages."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`(~?)\.?([\w.]+)`")
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^Example::\n\n((?:    .*\n?|\n)+)", re.MULTILINE)


class MarkdownDocstrings(Extension):
    """Link roles to the API pages where these have the name, and render examples as code."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one object's docstring before it is parsed."""
        if obj.docstring is None:
            return
        text = ROLE.sub(self._link, obj.docstring.value)
        text = CODE_BLOCK.sub(r"**Example**\n\n```python\n\1\n```\n", text)
        obj.docstring.value = EXAMPLE.sub("Examples:", _dedent_code(text))

    @staticmethod
    def _link(role: re.Match[str]) -> str:
        path = role[2]
        name = path.rsplit(".", 1)[-1] if role[1] else path
        return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'


def _dedent_code(text: str) -> str:
    def dedent(block: re.Match[str]) -> str:
        return "```python\n" + re.sub(r"^    ", "", block[1], flags=re.MULTILINE) + "```"

    return re.sub(r"```python\n(.*?)```", dedent, text, flags=re.DOTALL)
