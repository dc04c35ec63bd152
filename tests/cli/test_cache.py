"""``critique stats`` and the other verbs, as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lightning_sd.__main__ import main
from lightning_sd.critique.cache.cache import CritiqueCache
from tests.cli.test_main import QUICK


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["lightning_sd", *words])
        capsys.readouterr()
        main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def cache(run, tmp_path, monkeypatch):
    """A cache that a run has filled."""
    monkeypatch.chdir(tmp_path)
    run("critique", *QUICK, "--model.init_args.eval_samples=2")
    return str(tmp_path / "out/quickstart/critiques")


def test_a_cache_is_looked_after(run, cache, tmp_path):
    number = json.loads(run("critique", "stats", cache))["critiques"]
    assert number > 0
    assert json.loads(run("critique", "verify", cache)) == []
    assert json.loads(run("critique", "export", cache, str(tmp_path / "c.parquet"))) == number
    other = str(tmp_path / "other")
    assert json.loads(run("critique", "import", other, str(tmp_path / "c.parquet"))) == number
    run("critique", "merge", other, f"['{cache}']")
    assert json.loads(run("critique", "stats", other))["critiques"] == number


def test_what_is_not_there_is_one_line_and_no_traceback(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("critique", "stats", str(tmp_path / "nowhere"))
    assert stopped.value.code == 2
    assert "there is no critique cache" in capsys.readouterr().err


def test_stats_of_a_cache_load_no_torch(tmp_path):
    CritiqueCache(tmp_path)
    code = (
        "import sys, lightning_sd.__main__ as m\n"
        f"sys.argv = ['lightning_sd', 'critique', 'stats', {str(tmp_path)!r}]\n"
        "m.main()\n"
        "loaded = {'torch', 'lightning', 'transformers', 'datasets'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_verb_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("critique", "burn")
    assert "burn" in capsys.readouterr().err


def test_the_command_line_asks_torch_for_huge_pages(monkeypatch, tmp_path):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")  # so that it is taken back afterwards
    monkeypatch.setattr("sys.argv", ["lightning_sd", "critique", "stats", "--help"])
    for before, after in (("0", "0"), (None, "1")):
        if before is None:
            monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
        with pytest.raises(SystemExit):
            main()
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == after
