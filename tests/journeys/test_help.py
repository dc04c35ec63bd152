"""Help, version and completion, as a user asks for them from an empty folder."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import lightning_sd
from lightning_sd.cli import help as pages
from lightning_sd.cli.errors import list_classes
from lightning_sd.cli.run import run

BASES = {
    "lightning_sd.contexts": "lightning_sd.contexts.base.TeacherContext",
    "lightning_sd.objectives": "lightning_sd.objectives.base.Objective",
    "lightning_sd.teachers": "lightning_sd.teachers.base.TeacherWeights",
    "lightning_sd.tasks": "lightning_sd.tasks.base.Task",
    "lightning_sd.critique": "lightning_sd.critique.base.Critic",
    "lightning_sd.callbacks": "lightning.pytorch.callbacks.callback.Callback",
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", [["--help"], [], ["fit", "--help"], ["critique", "-h"]])
def test_help_fits_on_two_screens(words, capsys):
    run(words)
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 100


def test_the_overview_names_every_command(capsys):
    run(["--help"])
    text = capsys.readouterr().out
    for verb in ("fit", "probe", "analyze", "critique", "rubrics", "--version", "--debug"):
        assert f"  {verb} " in text
    assert "fit --config quickstart" in text


def test_critique_help_lists_the_commands_for_caches(capsys):
    run(["critique", "--help"])
    text = capsys.readouterr().out
    from lightning_sd.cli.cache import COMMANDS

    assert set(pages.CACHE_COMMANDS) == set(COMMANDS)
    for command in COMMANDS:
        assert f"  {command} " in text


def test_the_version(capsys):
    run(["--version"])
    assert capsys.readouterr().out == f"lightning_sd {lightning_sd.__version__}\n"


def test_the_console_script_is_declared():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    found = [script.value for script in scripts if script.name == "lightning-sd"]
    if not found:
        pytest.skip("installed before the script was added")
    assert found[0] == "lightning_sd.__main__:main"


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["critique", "stats", "no"]])
def test_torch_is_not_imported(words):
    code = (
        "import sys\nfrom lightning_sd.cli.run import run\n"
        f"try: run({words})\nexcept SystemExit: pass\n"
        "print('TORCH', 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "TORCH False" in found.stdout


def test_the_choices_are_the_public_classes():
    for home, base in BASES.items():
        public = [n for n in list_classes(base) if n in lightning_sd._HOMES[home]]
        assert sorted(pages.list_choices(home)) == sorted(public), home


@pytest.mark.slow
def test_every_option_of_the_short_help_exists(capsys):
    from lightning_sd.cli.main import main
    from tests.cli.test_configs import CONFIGS

    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    whole = capsys.readouterr().out
    for option in pages.TRAINER_OPTIONS:
        assert option in whole
    config = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), "--print_config"]
    given = ["--model.model.lora=LoRA", "--model.optimizer.lr=0.5"]
    given += [f"--{name}" for name in ("model.samples=2", "model.sampler.max_new_tokens=3")]
    with pytest.raises(SystemExit):
        main([*config, *given, "--model.sampler.temperature=0.5", "--data.batch_size=3"])
    printed = capsys.readouterr().out
    assert "lr: 0.5" in printed
    assert "max_new_tokens: 3" in printed


@pytest.mark.slow
def test_completion_for_bash(capsys, monkeypatch):
    pytest.importorskip("shtab")
    monkeypatch.setenv("JSONARGPARSE_ADD_PRINT_COMPLETION_ARGUMENT", "")
    with pytest.raises(SystemExit):
        run(["--print_completion", "shtab-bash"])
    assert "complete" in capsys.readouterr().out
