import json

import pytest

from lightning_sd.critique.cache.filters import Bounds, filter_attempts, score_questions
from lightning_sd.tasks.dataset import DatasetTask
from lightning_sd.text.steps import render_steps


def rows(name, right, critic, form, number=4):
    """``number`` attempts at one question, of which so many are right, criticised well, in form."""
    return [
        {
            "id": name,
            "question": f"What is {name}?",
            "reference": None,
            "gold": "3",
            "attempt": render_steps(["a"], "3") if i < form else "<answer>3</answer>",
            "finished": True,
            "correct": i < right,
            "critique": render_steps(["a"], "3" if i < critic else "4"),
            "refused": None,
            "tokens": ["a"],
        }
        for i in range(number)
    ]


GOOD = {"right": 1, "critic": 4, "form": 4}


def write(path, *groups):
    path.write_text("".join(json.dumps(row) + "\n" for group in groups for row in group))
    return path


def test_scores():
    found = score_questions([*rows("x", 1, 2, 3), *rows("y", 0, 4, 4)])
    assert [(s.id, s.attempts, s.solver, s.critic, s.form) for s in found] == [
        ("x", 4, 0.25, 0.5, 0.75),
        ("y", 4, 0.0, 1.0, 1.0),
    ]


def test_a_refused_critique_solves_nothing():
    refused = [{**row, "refused": "empty"} for row in rows("x", **GOOD)]
    assert score_questions(refused)[0].critic == 0


def test_each_bound_drops_its_questions(tmp_path):
    source = write(
        tmp_path / "a.jsonl",
        rows("good", **GOOD),
        rows("easy", **{**GOOD, "right": 2}),
        rows("hopeless", **{**GOOD, "critic": 1}),
        rows("untidy", **{**GOOD, "form": 3}),
        rows("both", **{**GOOD, "right": 4, "form": 0}),
    )
    report = filter_attempts(source, tmp_path / "out")
    assert (report.questions, report.kept) == (5, 1)
    assert report.missed == {"max_solver": 2, "min_critic": 1, "min_form": 2}
    assert report.after == {"solver": 0.25, "critic": 1.0, "form": 1.0}
    assert report.before["solver"] == pytest.approx((1 + 2 + 1 + 1 + 4) / 20)
    kept = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").open()]
    assert [row["id"] for row in kept] == ["good"] * 4
    assert "tokens" not in kept[0]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "1 of 5 questions" in card
    assert "| max_solver | 0.3125 | 2 |" in card
    assert "| form | 0.750 | 1.000 |" in card


def test_the_bound_of_the_paper_is_strict(tmp_path):
    five = rows("five", 5, 16, 16, number=16)
    four = rows("four", 4, 16, 16, number=16)
    report = filter_attempts(write(tmp_path / "a.jsonl", five, four), tmp_path / "out")
    assert report.kept == 1


def test_the_result_is_a_data_set_to_train_on(tmp_path):
    groups = [rows(str(i), **GOOD) for i in range(60)]
    filter_attempts(write(tmp_path / "a.jsonl", *groups), tmp_path / "out")
    columns = {name: name for name in ("question", "reference", "attempt", "finished", "critique")}
    task = DatasetTask(
        str(tmp_path / "out"), {**columns, "answer": "gold"}, val_fraction=0.2, instruction=None
    )
    question = task.questions("train")[0]
    assert question.answer == "3"
    assert question.extra["critique"] == render_steps(["a"], "3")


def test_nothing_left(tmp_path):
    source = write(tmp_path / "a.jsonl", rows("easy", **{**GOOD, "right": 4}))
    with pytest.raises(ValueError, match="Widen the bounds"):
        filter_attempts(source, tmp_path / "out")


def test_missing_columns_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match=r"line 1: .*attempt.* missing"):
        filter_attempts(tmp_path / "a.jsonl", tmp_path / "out")


def test_bounds_are_shares():
    with pytest.raises(ValueError, match="max_solver=5"):
        Bounds(max_solver=5)


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a/b", "..", "\x1b[2J"])
def test_ids_name_no_files(tmp_path, name):
    source = write(tmp_path / "a.jsonl", rows(name, **GOOD))
    filter_attempts(source, tmp_path / "folder" / "out")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"a.jsonl", "folder/out/train.jsonl", "folder/out/README.md"}
    # JSON escapes control characters, so a terminal that shows the file stays as it is.
    assert "\x1b" not in (tmp_path / "folder" / "out" / "train.jsonl").read_text()
