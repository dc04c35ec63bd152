"""The short help pages: what most runs need, on two screens, without importing torch.

A test compares the option names and classes here with those of the real parser.
"""

from __future__ import annotations

import lightning_sd
from lightning_sd import _HOMES

VERBS = {
    "fit": "Train the student.",
    "validate": "Measure answers to the validation questions.",
    "test": "Measure answers to the test questions.",
    "predict": "Write answers with the advantage of each token.",
    "critique": "Fill the critique cache before training, or maintain caches.",
    "probe": "Measure whether a teacher context is worth distilling, before training.",
    "analyze": "Show on which tokens the teacher's signal falls.",
    "plan": "Print the memory and time that a run needs on given hardware.",
    "export": "Write a checkpoint as a transformers folder, and upload it.",
    "rubrics": "Write the rubrics of a task with a model.",
    "configs": "List the configs that come with the package.",
    "init": "Write a commented copy of such a config into the current folder.",
}
CACHE_COMMANDS = {
    "stats": "count critiques, cases, refusals and bytes of a cache",
    "verify": "check every entry; status 1 if one is damaged",
    "merge": "copy the entries of other caches into one",
    "export": "write a cache to a parquet or JSON lines file",
    "import": "read such a file into a cache",
    "filter": "select attempts of a data set by their critiques",
    "push": "upload a cache to the hub as a data set with a card",
    "serve": "serve a cache to processes on other machines (extra `serve`)",
}
OWN_OPTIONS = {
    "probe": {
        "--questions": "maximum number of validation questions (64)",
        "--samples": "attempts per question, at least 2 (4)",
        "--phrases": "phrases in an answer that refer to a context",
        "--thresholds.min_gain": "minimum gain of the teacher on failed attempts (0.05)",
        "--admission": "also test that the context is read (false)",
        "--out": "JSON file for the numbers (out/probe.json)",
    },
    "analyze": {
        "--contexts": "further contexts to compare, such as --contexts+=ReferenceSolution",
        "--split": "val or test (val)",
        "--questions": "maximum number of questions (64)",
        "--samples": "rollouts per question (4)",
        "--out": "folder for rows, numbers, page and figure (out/analysis)",
    },
    "plan": {
        "--hardware": "h100, rtx4090 or l4 (h100)",
        "--devices": "numbers of devices ([1, 2, 4, 8, 16, 32, 64])",
        "--prompt_tokens": "tokens of a question's prompt (256)",
        "--teacher_prompt_tokens": "tokens of a teacher's prompt",
        "--answer_tokens": "tokens of a rollout (the sampler's limit)",
        "--out": "JSON file for the numbers (out/plan.json)",
    },
    "critique": {"--out": "JSON lines file for sampled attempts (out/attempts.jsonl)"},
}
COMMON_OPTIONS = {
    "-c, --config": "YAML file or shipped config (by name); several are overlaid",
    "--print_config": "print the settings of the run and exit",
    "--ckpt_path": "checkpoint: a path, last, last_if_any, or last_good",
    "--seed_everything": "seed of Python, NumPy and torch (1)",
}
METHOD_OPTIONS: dict[str, tuple[str, ...]] = {
    "--teacher_context": ("what the teacher sees", "lightning_sd.contexts"),
    "--model.objective": ("how the signal becomes a loss", "lightning_sd.objectives"),
    "--model.teacher": ("which parameters the teacher has", "lightning_sd.teachers"),
    "--data.task": ("questions and judge", "lightning_sd.tasks", "lightning_sd.lab"),
    "--data.critic": ("who writes critiques", "lightning_sd.critique"),
    "--trainer.callbacks+": ("tables, exports, reports", "lightning_sd.callbacks"),
}
BASE_CLASSES = frozenset(
    {
        *("TeacherContext", "Objective", "LogprobObjective", "TokenWeight", "TeacherWeights"),
        *("Task", "Critic", "CritiqueCache", "CritiqueRequest", "LMReflector", "LMCurator"),
        *("CritiqueReflector", "InsightCurator", "ContextHost", "InputSpec", "ObjectiveInputs"),
        *("StepState", "TokenInputs", "TokenLoss", "AtomicCheckpointIO", "DamagedCheckpointError"),
        *("TrackioLogger", "CollapseError"),
    }
)
"""Public classes of these rooms that are not choices of an option."""
MODEL_OPTIONS = {
    "--model.model.name": "hub name, folder, .gguf file, or package:NAME",
    "--model.model.lora": "LoRA trains adapters only",
    "--model.samples": "rollouts per question (4)",
    "--model.eval_samples": "answers per question in evaluation (12)",
    "--model.sampler.max_new_tokens": "length limit of a rollout (256)",
    "--model.sampler.temperature": "sampling temperature (1.0)",
    "--model.optimizer.lr": "learning rate (1e-5)",
    "--data.batch_size": "training questions per step and process (8)",
    "--data.cache_dir": "folder of the critique cache, or its server's URL",
}
TRAINER_OPTIONS = {
    "--trainer.max_steps": "optimizer steps; -1: no limit",
    "--trainer.max_epochs": "passes over the training questions",
    "--trainer.accelerator": "cpu, gpu or auto",
    "--trainer.devices": "number of devices",
    "--trainer.precision": "32-true, bf16-mixed, ...",
    "--trainer.accumulate_grad_batches": "micro-batches per optimizer step",
    "--trainer.gradient_clip_val": "maximum gradient norm",
    "--trainer.val_check_interval": "steps between validations",
    "--trainer.log_every_n_steps": "steps between logged values",
}


def list_choices(home: str) -> list[str]:
    """List the public classes that an option accepts by name.

    Args:
        home: Module in which the classes are.
    """
    names = [name for module, names in _HOMES.items() if module == home for name in names]
    return [n for n in names if n not in BASE_CLASSES and n[0].isupper()]


def format_overview(program: str) -> str:
    """Format the help of the program.

    Args:
        program: Command that starts it.
    """
    return "\n".join(
        [
            f"usage: {program} COMMAND [--config FILE ...] [--OPTION VALUE ...]",
            "",
            f"lightning_sd {lightning_sd.__version__}: self-distillation of language models.",
            "Start with:",
            f"  {program} fit --config quickstart",
            "",
            "commands:",
            *_align(VERBS, 22),
            "",
            "options:",
            *_align(
                {
                    "--version": "print the version and exit",
                    "--debug": "show the usage text and the traceback of an error",
                    "--print_completion": "print a completion script (extra `completion`)",
                },
                22,
            ),
            "",
            f"{program} COMMAND --help shows the options of a command.",
        ]
    )


def format_verb(program: str, verb: str) -> str:
    """Format the short help of one command.

    Args:
        program: Command that starts the program.
        verb: The command.
    """
    lines = [f"usage: {program} {verb} --config FILE [--OPTION VALUE ...]", "", VERBS[verb]]
    if verb == "critique":
        lines += ["", f"Caches: {program} critique COMMAND --help", *_align(CACHE_COMMANDS)]
    if verb in OWN_OPTIONS:
        lines += ["", f"{verb}:", *_align(OWN_OPTIONS[verb])]
    lines += ["", "run:", *_align(COMMON_OPTIONS), "", "method:"]
    for option, (meaning, *homes) in METHOD_OPTIONS.items():
        choices = [name for home in homes for name in list_choices(home)]
        lines += [f"  {option:<34}{meaning}; one of", *_wrap(choices)]
    lines += ["", "model and data:", *_align(MODEL_OPTIONS), "", "trainer:"]
    lines += [*_align(TRAINER_OPTIONS), "", "more:"]
    return "\n".join(
        [
            *lines,
            *_align(
                {
                    "--help_all": "every option, including all of Lightning's trainer",
                    "--model.help SelfDistillModule": "options of a class",
                    "--data.help CritiqueDataModule": "options of the data module",
                    "--teacher_context.help NAME": "options of a context",
                    "--debug": "usage text and traceback of an error",
                }
            ),
        ]
    )


def _align(entries: dict[str, str], width: int = 34) -> list[str]:
    return [f"  {name:<{width}}{text}" for name, text in entries.items()]


def _wrap(names: list[str], width: int = 100) -> list[str]:
    lines = [" " * 35]
    for name in names:
        if len(lines[-1]) + len(name) + 2 > width:
            lines.append(" " * 35)
        lines[-1] += f" {name},"
    lines[-1] = lines[-1].rstrip(",")
    return lines
