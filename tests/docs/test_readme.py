"""The README's code runs, its YAML parses, its commands are those of CI."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lightning_sd.cli.main import main
from tests.cli.test_configs import CONFIGS, TINY, printed

ROOT = CONFIGS.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [body for found, body in BLOCKS if found == language]


@pytest.mark.parametrize("body", blocks("python"), ids=lambda body: body.split("\n")[0][:40])
def test_python_runs(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(body, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("body", blocks("yaml"), ids=["method", "data"])
def test_yaml_parses_behind_the_quickstart(body, tmp_path, capsys, monkeypatch):
    fragment = tmp_path / "fragment.yaml"
    fragment.write_text(body)
    # No hub here: the data block is checked with the names alone.
    if "openai/gsm8k" in body:
        config = yaml.safe_load(body)
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"question": "1+1?", "answer": "It is 2. #### 2"}\n' * 1)
        arguments = config["data"]["init_args"]["task"]["init_args"]
        arguments.update(path=str(rows), name=None, splits=None)
        fragment.write_text(yaml.safe_dump(config))
    merged = printed(
        ["fit", "--config", str(CONFIGS / "quickstart.yaml"), "--config", str(fragment)], capsys
    )
    assert merged["trainer"]["max_steps"]


def test_the_page_on_new_methods_is_a_method(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "add_a_method.md").read_text()
    found = dict(re.findall(r"^```(python|yaml)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert sum(len(body.splitlines()) for body in found.values()) < 40
    (tmp_path / "my_methods.py").write_text(found["python"])
    (tmp_path / "majority.yaml").write_text(found["yaml"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    files = [CONFIGS / "quickstart.yaml", "majority.yaml"]
    cli = main(["fit", *[word for f in files for word in ("--config", str(f))], *TINY])
    assert type(cli.trainer.lightning_module.teacher_context).__name__ == "MajorityHint"
    assert cli.trainer.global_step == 1


def test_commands_are_what_ci_runs():
    commands = blocks("bash")
    run = (ROOT / ".ci" / "run").read_text()
    assert 'pip install torch==2.13.0 -e ".[dev]"' in commands[1]
    assert 'torch==2.13.0 -e ".[dev]"' in run
    assert "make check" in commands[1]
    assert "make check-all" in run


def test_commands_name_files_that_exist():
    for path in re.findall(r"configs/[\w.]+\.yaml", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_public_names_are_importable():
    import lightning_sd

    for name in lightning_sd.__all__:
        assert getattr(lightning_sd, name) is not None
    assert Path(lightning_sd.__file__).parent.name == "lightning_sd"
