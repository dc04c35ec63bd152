import subprocess
import sys

import pytest
import yaml

from lightning_sd.cli.guards import check_aliases
from lightning_sd.cli.main import main
from lightning_sd.text.cleaning import hide_credentials

LEVELS = list(zip("abcdefgh", "bcdefghi", strict=True))
NESTED_LISTS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in LEVELS
)
NESTED_MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new}\n  <<: [{', '.join([f'*{old}'] * 10)}]\n" for old, new in LEVELS
)
ENDLESS = "a: &a [*a]\n"


@pytest.mark.parametrize("text", [NESTED_LISTS, NESTED_MERGES, ENDLESS])
def test_a_bomb_is_refused_before_it_expands(text):
    with pytest.raises(yaml.YAMLError, match="aliases expand"):
        check_aliases(text)


def test_usual_aliases_are_allowed():
    check_aliases("a: &a {lr: 1}\nb: *a\nc: {<<: *a, wd: 2}\nd: 3*4*5\n")
    check_aliases("")


def test_a_config_that_is_a_bomb_ends_with_one_line(tmp_path, capsys):
    (tmp_path / "bomb.yaml").write_text(NESTED_LISTS)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(tmp_path / "bomb.yaml")])
    assert stopped.value.code == 2
    assert "aliases expand" in capsys.readouterr().err


def test_an_error_does_not_print_the_password_of_a_url():
    critic = "--data.init_args.critic"
    words = [
        "--config=configs/quickstart.yaml",
        f"{critic}.class_path=ServerCritic",
        f"{critic}.init_args.model=m",
        f"{critic}.init_args.url=http://me:hunter2@host/v1",
    ]
    code = f"from lightning_sd.cli.main import main; main({['fit', *words]})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "api_key_env" in run.stderr
    assert "hunter2" not in run.stdout + run.stderr


def test_a_parser_error_does_not_print_the_password_of_a_url(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--data.init_args.url=http://me:hunter2@host/v1"])
    assert "hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://me:pw@host/v1", "http://***@host/v1"),
        ("('https://token@host')", "('https://***@host')"),
        ("http://me:p@w@host/", "http://***@host/"),
        ("http://host/a@b and me@host", "http://host/a@b and me@host"),
    ],
)
def test_only_credentials_are_hidden(text, hidden):
    assert hide_credentials(text) == hidden
