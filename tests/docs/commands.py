"""Checks a shell command of the documentation without running what takes long."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex

import pytest

from lightning_sd.cli.main import main
from tests.docs.blocks import ROOT

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
CACHE_VERBS = ("stats", "verify", "merge", "export", "import", "filter", "push", "serve")
HARMLESS = ("export", "source", "git", "pre-commit", "cd", "tensorboard", "mkdocs")


def split_commands(body):
    """One list of words per command; environment settings in front are dropped."""
    joined = body.replace("\\\n", " ")
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word in ("&&", ";", "|", "&"):
                while words and re.match(r"^[A-Z_]+=", words[0]):
                    words = words[1:]
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def check_command(words):
    """Raise unless the command's options, files, extras or targets exist."""
    if words[:3] == ["python", "-m", "lightning_sd"]:
        check_lightning_sd(words[3:])
    elif words[0] == "lightning-sd":
        check_lightning_sd(words[1:])
    elif words[:2] == ["python", "-c"]:
        compile(words[2], "<docs>", "exec")
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None, words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    elif words[0] == "pip":
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(EXTRAS), extras
    elif words[0] == "make":
        assert set(words[1:]) <= set(TARGETS), words
    else:
        assert words[0] in HARMLESS, f"teach tests/docs/commands.py the command {words[0]}"


def check_lightning_sd(words):
    """Parse a command line of ours, all but the run itself."""
    if words and words[0] == "critique" and len(words) > 1 and words[1] in CACHE_VERBS:
        from lightning_sd.cli.cache import main as cache_main

        with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(io.StringIO()):
            cache_main([words[1], "--help"])
        assert stopped.value.code in (0, None)
        return
    if "--help" in words or not words:
        return
    if words[0] in ("configs", "init"):  # quick, and later commands may need the copy
        from lightning_sd.cli.shipped import main as shipped_main

        shipped_main(words)
        return
    if words[0] == "export":
        from lightning_sd.cli.export import build_parser

        build_parser().parse_args(words[1:])
        return
    if words[0] == "rubrics":
        from lightning_sd.cli.rubrics import main as rubrics_main

        with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(io.StringIO()):
            rubrics_main([*words, "--print_config"])
        assert stopped.value.code in (0, None)
        return
    words = [word for word in words if "--print_config" not in word]
    output = io.StringIO()
    with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(output):
        main([*words, "--print_config"])
    assert stopped.value.code in (0, None), words
