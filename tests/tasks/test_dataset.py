import json
import pickle

import pytest

from lightning_sd._serialize import build, describe
from lightning_sd.tasks.dataset import DatasetTask
from lightning_sd.tasks.judges import JudgeLimits

COLUMNS = {"question": "problem", "answer": "solution"}


def rows(n, start=0):
    return [
        {"problem": f"What is {i}+1?", "solution": f"It is {i + 1}.\n#### {i + 1}", "row": i}
        for i in range(start, start + n)
    ]


def write_jsonl(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def as_jsonl(folder):
    return {"path": write_jsonl(folder / "a.jsonl", rows(60))}


def as_format(folder):
    return {"path": "json", "data_files": write_jsonl(folder / "a.txt", rows(60))}


def as_parquet(folder):
    import datasets

    datasets.Dataset.from_list(rows(60)).to_parquet(str(folder / "a.parquet"))
    return {"path": str(folder / "a.parquet")}


def as_csv(folder):
    import datasets

    datasets.Dataset.from_list(rows(60)).to_csv(str(folder / "a.csv"))
    return {"path": str(folder / "a.csv")}


def as_folder(folder):
    (folder / "set").mkdir()
    write_jsonl(folder / "set" / "train.jsonl", rows(60))
    return {"path": str(folder / "set")}


def as_saved(folder):
    import datasets

    datasets.Dataset.from_list(rows(60)).save_to_disk(str(folder / "saved"))
    return {"path": str(folder / "saved")}


def split_texts(task):
    return {s: [q.text for q in task.questions(s)] for s in ("train", "val", "test")}


@pytest.mark.parametrize("source", [as_jsonl, as_format, as_parquet, as_csv, as_folder, as_saved])
def test_every_kind_of_source_gives_the_same_questions(source, tmp_path):
    task = DatasetTask(
        **source(tmp_path), columns=COLUMNS, answer_pattern="#### (.+)", val_fraction=0.2
    )
    split = split_texts(task)
    assert sorted(text for texts in split.values() for text in texts) == sorted(
        row["problem"] for row in rows(60)
    )
    assert all(split.values())
    question = task.questions("train")[0]
    assert question.answer == str(int(question.text.removeprefix("What is ")[:-3]) + 1)
    assert task.verify(question, f"<answer>{question.answer}</answer>").correct
    assert not task.verify(question, "<answer>-1</answer>").correct


def test_given_splits_are_kept_and_leaks_removed_from_training(tmp_path):
    import datasets

    datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(rows(20)),
            "dev": datasets.Dataset.from_list(rows(5, start=18)),
            "final": datasets.Dataset.from_list(rows(5, start=22)),
        }
    ).save_to_disk(str(tmp_path / "set"))
    task = DatasetTask(
        str(tmp_path / "set"),
        COLUMNS,
        splits={"train": "train", "val": "dev", "test": "final"},
    )
    split = split_texts(task)
    assert split["test"] == [row["problem"] for row in rows(5, start=22)]
    assert split["val"] == [row["problem"] for row in rows(4, start=18)]
    assert split["train"] == [row["problem"] for row in rows(18)]


def test_repeated_questions_never_cross_splits(tmp_path):
    repeated = [
        {**row, "problem": text}
        for row in rows(40)
        for text in (row["problem"], row["problem"].upper(), row["problem"].replace(" ", "  "))
    ]
    task = DatasetTask(
        write_jsonl(tmp_path / "a.jsonl", repeated), COLUMNS, val_fraction=0.3, test_fraction=0.3
    )
    seen = [
        {" ".join(text.lower().split()) for text in texts} for texts in split_texts(task).values()
    ]
    assert sum(map(len, seen)) == 40 == len(set().union(*seen))
    assert sum(map(len, split_texts(task).values())) == 120


def test_the_cut_depends_on_the_question_and_not_on_its_place(tmp_path):
    forward = DatasetTask(write_jsonl(tmp_path / "a.jsonl", rows(60)), COLUMNS, val_fraction=0.2)
    backward = DatasetTask(
        write_jsonl(tmp_path / "b.jsonl", rows(90)[::-1]), COLUMNS, val_fraction=0.2
    )
    assert set(split_texts(forward)["test"]) <= set(split_texts(backward)["test"])
    other = DatasetTask(
        write_jsonl(tmp_path / "a.jsonl", rows(60)), COLUMNS, val_fraction=0.2, seed=1
    )
    assert split_texts(forward)["test"] != split_texts(other)["test"]


def test_shares_are_about_right(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", rows(1000))
    split = split_texts(DatasetTask(path, COLUMNS, val_fraction=0.1, test_fraction=0.2))
    # Binomial: six standard deviations either side.
    assert abs(len(split["val"]) - 100) < 57
    assert abs(len(split["test"]) - 200) < 76


def test_columns_fill_the_question(tmp_path):
    items = [
        {"q": f"Q{i}", "ref": rf"so \boxed{{{i}}}", "try": f"<answer>{i}</answer>", "key": f"k{i}"}
        for i in range(60)
    ]
    task = DatasetTask(
        write_jsonl(tmp_path / "a.jsonl", items),
        {"question": "q", "reference": "ref", "attempt": "try", "id": "key"},
        val_fraction=0.2,
        instruction=None,
    )
    question = task.questions("train")[0]
    number = question.text[1:]
    assert question.reference == rf"so \boxed{{{number}}}"
    assert question.answer == number
    assert question.attempt == f"<answer>{number}</answer>"
    assert question.id == f"k{number}"
    assert question.messages == ({"role": "user", "content": question.text},)


def test_stored_critiques_travel_with_the_question(tmp_path):
    items = [{**row, "try": "x", "done": False, "words": "y"} for row in rows(60)]
    columns = {**COLUMNS, "attempt": "try", "finished": "done", "critique": "words"}
    task = DatasetTask(write_jsonl(tmp_path / "a.jsonl", items), columns, val_fraction=0.2)
    question = task.questions("train")[0]
    assert (question.attempt, question.extra) == ("x", {"finished": False, "critique": "y"})


def test_math_judge_is_used(tmp_path):
    items = [{"problem": f"Half of {i}?", "solution": f"{i}/2"} for i in range(1, 61, 2)]
    task = DatasetTask(
        write_jsonl(tmp_path / "a.jsonl", items), COLUMNS, judge="math", val_fraction=0.3
    )
    question = task.questions("train")[0]
    value = int(question.text.removeprefix("Half of ")[:-1]) / 2
    assert task.verify(question, f"<answer>{value}</answer>").correct


def test_sizes_limit_the_splits(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", rows(100))
    task = DatasetTask(path, COLUMNS, val_fraction=0.2, sizes={"train": 7, "val": 3})
    assert [len(task.questions(s)) for s in ("train", "val")] == [7, 3]
    assert len(task.questions("train")[:5]) == 5


def test_questions_travel_to_loader_workers(tmp_path):
    questions = DatasetTask(
        write_jsonl(tmp_path / "a.jsonl", rows(60)), COLUMNS, val_fraction=0.2
    ).questions("train")
    again = pickle.loads(pickle.dumps(questions))
    assert again[3] == questions[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"columns": {"question": "problem", "answer": "answr"}},
            "'answr' is not a column.*solution",
        ),
        ({"columns": {"question": "problem"}}, "answer"),
        ({"columns": {"question": "problem", "anwser": "solution"}}, "no field"),
        ({"splits": {"train": "train", "val": "dev"}}, "'dev' is not a split.*train"),
        ({"splits": {"val": "train"}}, "add the source's name of .train."),
        ({"judge": "maths"}, "judge='maths'"),
        ({"answer_pattern": "####"}, "one group"),
        ({"answer_pattern": "@@@ (.+)"}, "no answer was found"),
        ({"val_fraction": 0.7, "test_fraction": 0.5}, "leave some"),
        ({"val_fraction": 0.0}, "val split has no questions"),
        ({"sizes": {"valid": 3}}, "valid"),
    ],
)
def test_bad_options_are_named(tmp_path, change, message):
    options = {"columns": COLUMNS, "answer_pattern": "#### (.+)", "val_fraction": 0.2, **change}
    with pytest.raises(ValueError, match=message):
        DatasetTask(write_jsonl(tmp_path / "a.jsonl", rows(40)), **options)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        DatasetTask("./nowhere.jsonl", COLUMNS)


def parse_task(init_args):
    """Make a task as the command line does from YAML."""
    from jsonargparse import ArgumentParser

    from lightning_sd import Task

    parser = ArgumentParser()
    parser.add_subclass_arguments(Task, "task")
    config = {"class_path": "lightning_sd.tasks.DatasetTask", "init_args": init_args}
    parsed = parser.parse_object({"task": config})
    again = parser.parse_string(parser.dump(parsed))  # as --print_config writes it
    return parser.instantiate_classes(again).task


FUNCTIONS = "tests.tasks.judges.functions"


@pytest.mark.parametrize(
    ("options", "completion", "reward"),
    [
        ({}, "<answer>1,002.0</answer>", 1.0),
        ({"judge": "exact"}, "<answer>1,002.0</answer>", 0.0),
        ({"completion_pattern": "answer_is"}, "The answer is 1002.", 1.0),
        ({"completion_pattern": ["boxed", "last_number"]}, "1002", 1.0),
        ({"judge": f"{FUNCTIONS}.judge_number"}, "-2.5", -2.5),
        ({"judge": f"{FUNCTIONS}.reward_length"}, "a", -2.0),
        (
            {"judge": {"class_path": f"{FUNCTIONS}.Close", "init_args": {"width": 4}}},
            "1001",
            0.75,
        ),
        (
            {"judge": ["number", f"{FUNCTIONS}.reward_length"], "judge_weights": [1.0, 0.5]},
            "#### 1002",
            -2.0,
        ),
        (
            {"judge": ["exact", {"class_path": f"{FUNCTIONS}.Close", "init_args": {"width": 4}}]},
            "1001",
            0.75,
        ),
        (
            {
                "judge": {
                    "class_path": "lightning_sd.tasks.judges.RewardJudge",
                    "init_args": {
                        "function": f"{FUNCTIONS}.reward_solution",
                        "conversational": True,
                    },
                },
                "extra_columns": ["solution"],
            },
            "1002",
            1.0,
        ),
    ],
)
def test_any_judge_comes_from_yaml_and_a_description(tmp_path, options, completion, reward):
    items = [{"problem": f"What is {i}?", "solution": "1002"} for i in range(40)]
    path = write_jsonl(tmp_path / "a.jsonl", items)
    options = {"path": path, "columns": COLUMNS, "val_fraction": 0.2, **options}
    limits = {"seconds": 20.0, "batch_seconds": 60.0, "megabytes": 512}
    task = parse_task({**options, "judge_limits": limits})
    description = json.loads(json.dumps(describe(task)))
    tasks = [task]
    if f"{FUNCTIONS}.Close" in json.dumps(description):
        # YAML may name any class; a description, which may come from a checkpoint, may not.
        with pytest.raises(ValueError, match=r"Close': not a class of lightning_sd"):
            build(description)
    else:
        tasks.append(build(description))
    for each in tasks:
        question = each.questions("train")[0]
        assert each.verify(question, completion).reward == reward
        assert each.judge_limits == JudgeLimits(**limits)


def test_a_judge_that_needs_no_answer_needs_no_column_of_answers(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"problem": f"Say {i}."} for i in range(40)])
    columns = {"question": "problem"}
    task = DatasetTask(path, columns, judge=f"{FUNCTIONS}.judge_number", val_fraction=0.2)
    assert task.questions("train")[0].answer is None
    with pytest.raises(ValueError, match="map `answer` or `reference`"):
        DatasetTask(path, columns, val_fraction=0.2)


def test_numeric_columns_are_read_and_objects_refused(tmp_path):
    items = [{"problem": f"{i}?", "solution": float(i), "all": {"a": i}} for i in range(40)]
    path = write_jsonl(tmp_path / "a.jsonl", items)
    task = DatasetTask(path, COLUMNS, val_fraction=0.2, judge="exact")
    question = task.questions("train")[0]
    assert question.answer == question.text[:-1]
    with pytest.raises(ValueError, match=r"answer: 'all' holds a mapping with the keys a"):
        DatasetTask(path, {"question": "problem", "answer": "all"}, val_fraction=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion_pattern": "boxd"}, "completion_pattern='boxd'.*boxed"),
        ({"judge": f"{FUNCTIONS}.reward_solution"}, r"requires \['solution'\]"),
        ({"judge": f"{FUNCTIONS}.no_such"}, "no_such.*import path"),
        ({"judge_weights": [1.0]}, "judge_weights"),
        ({"extra_columns": ["level"]}, "extra_columns: 'level' is not a column"),
        ({"extra_columns": ["critique"]}, "extra_columns: .*reserved"),
    ],
)
def test_bad_judges_and_columns_are_named(tmp_path, change, message):
    path = write_jsonl(tmp_path / "a.jsonl", rows(40))
    with pytest.raises(ValueError, match=message):
        DatasetTask(path, COLUMNS, val_fraction=0.2, **change)


def conversation(i):
    return {
        "prompt": [
            {"role": "user", "content": f"Think of {i}."},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "Add 1."},
        ],
        "completion": [{"role": "assistant", "content": f"<answer>{i + 1}</answer>"}],
    }


def test_conversations_are_recognized_and_told_apart_by_their_earlier_turns(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [conversation(i) for i in range(60)])
    task = DatasetTask(path, val_fraction=0.2, instruction="Be brief.")
    questions = [q for split in ("train", "val", "test") for q in task.questions(split)]
    assert len(questions) == 60
    assert {q.text for q in questions} == {"Add 1."}
    assert [m["role"] for m in questions[0].messages] == ["system", "user", "assistant", "user"]
    assert sorted(int(q.answer) for q in questions) == list(range(1, 61))


def test_an_unknown_layout_is_refused_with_its_columns(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(ValueError, match=r"label, text is not known\. Map them"):
        DatasetTask(path)


def test_any_accepted_answer_is_right_and_counts_as_the_first(tmp_path):
    items = [
        {"question": f"What is {i}+1?", "answer": [str(i + 1), f"number {i + 1}"]}
        for i in range(60)
    ]
    task = DatasetTask(write_jsonl(tmp_path / "a.jsonl", items), val_fraction=0.2)
    question = task.questions("train")[0]
    first, second = question.extra["accepted_answers"]
    texts = [f"<answer>{answer}</answer>" for answer in (first, second, "no", second)]
    verdicts = task.verify_batch([question] * 4, texts)
    assert [v.correct for v in verdicts] == [True, True, False, True]
    assert [v.answer for v in verdicts] == [first, first, "no", first]


def test_a_cell_that_cannot_be_read_names_column_and_row(tmp_path):
    items = [{"question": f"What is {i}+1?", "answer": {"value": i}} for i in range(60)]
    path = write_jsonl(tmp_path / "a.jsonl", items)
    with pytest.raises(
        ValueError, match=r"columns: answer: 'answer' holds a mapping with the keys"
    ):
        DatasetTask(path, val_fraction=0.2)
    columns = {"question": "question", "answer": "answer.value"}
    task = DatasetTask(path, columns, val_fraction=0.2)
    assert task.questions("train")[0].answer.isdecimal()


def test_a_stream_is_recognized_too(tmp_path):
    from lightning_sd.tasks.stream import StreamTask

    path = write_jsonl(tmp_path / "a.jsonl", [conversation(i) for i in range(200)])
    task = StreamTask(path, None, epoch_size=8, val_size=2, test_size=2, held_out=0.2, block=8)
    answers = {q.answer for split in ("val", "test") for q in task.questions(split)}
    assert len(answers) == 4
