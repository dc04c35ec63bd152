"""The configs that come with the package: by name, listed, copied, and in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from lightning_sd.cli.main import main
from lightning_sd.cli.run import run
from lightning_sd.cli.shipped import find_configs, resolve_words
from tests.cli.test_configs import CONFIGS, TINY

ROOT = CONFIGS.parent


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refuse(words, capsys):
    """The one line that a refused command prints."""
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_config_is_found_by_its_name():
    cli = main(["fit", "--config", "quickstart", "--config=grpo", *TINY])
    assert type(cli.model.objective).__name__ == "PolicyGradient"
    assert cli.trainer.global_step == 1


def test_a_file_wins_over_a_name():
    quickstart = str(CONFIGS / "quickstart.yaml")
    assert resolve_words(["fit", "-c", "quickstart"]) == ["fit", "-c", quickstart]
    Path("quickstart").write_text("seed_everything: 7")
    assert resolve_words(["fit", "-c", "quickstart"]) == ["fit", "-c", "quickstart"]


def test_a_folder_of_that_name_does_not_hide_a_config():
    Path("quickstart").mkdir()
    assert resolve_words(["--config=quickstart"]) == [f"--config={CONFIGS / 'quickstart.yaml'}"]


def test_yaml_on_the_command_line_is_no_name():
    words = ["fit", "--config", "seed_everything: 3"]
    assert resolve_words(words) == words


@pytest.mark.parametrize("name", ["quikstart", "configs/quikstart.yaml"])
def test_an_unknown_name_is_one_line(name, capsys):
    line = refuse(["fit", "--config", name], capsys)
    assert f"config={name}: neither a file nor a shipped config; did you mean quickstart?" in line
    assert "sdpo_feedback" in line


def test_every_config_is_listed_with_a_line(capsys):
    run(["configs"])
    listed = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  ")
    )
    assert set(listed) == {path.stem for path in CONFIGS.glob("*.yaml")}
    assert all(text.endswith(".") and len(text) < 100 for text in listed.values()), listed
    assert listed["quickstart"].startswith("Step-aligned self-distillation of the embedded solver")


def test_init_copies_and_does_not_overwrite(capsys):
    run(["init", "quickstart"])
    copy = Path("quickstart.yaml")
    original = (CONFIGS / "quickstart.yaml").read_text()
    assert yaml.safe_load(copy.read_text()) == yaml.safe_load(original)
    assert copy.read_text().count("#") == original.count("#")
    assert "lightning-sd fit --config quickstart.yaml" in copy.read_text()
    copy.write_text("mine")
    capsys.readouterr()
    assert "the file exists" in refuse(["init", "quickstart"], capsys)
    assert copy.read_text() == "mine"
    assert "did you mean smollm2?" in refuse(["init", "smollm"], capsys)


@pytest.mark.parametrize("name", find_configs())
def test_every_config_says_how_to_run_it(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert f"--config {name}\n" in text.split("\n\n")[0]


@pytest.mark.slow
def test_the_wheel_holds_the_configs(tmp_path):
    """Build without a network, and run what the wheel holds from an empty folder."""
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = set(archive.namelist())
    assert {n for n in names if n.endswith("py.typed")} == {"lightning_sd/py.typed"}
    assert {n for n in names if not n.startswith(("lightning_sd/", "lightning_sd-"))} == set()
    code = (
        "import lightning_sd; from lightning_sd.cli.run import run\n"
        f"assert lightning_sd.__file__.startswith({str(tmp_path / 'site')!r})\n"
        f"run(['configs']); run({['fit', '--config', 'quickstart', *TINY]})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for path in CONFIGS.glob("*.yaml"):
        assert f"  {path.stem} " in done.stdout
