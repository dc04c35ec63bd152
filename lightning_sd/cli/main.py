"""``python -m lightning_sd``: the Lightning CLI with a teacher context and a critique command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_sd
from lightning_sd.callbacks.resume import ExactResume
from lightning_sd.cli.checkpoint_path import find_checkpoint
from lightning_sd.cli.checks import check_checkpoint_path, check_settings
from lightning_sd.cli.errors import condense, is_debug
from lightning_sd.cli.guards import OneLineParser, install_yaml_guard
from lightning_sd.cli.shipped import resolve_words
from lightning_sd.cli.trainer import Trainer
from lightning_sd.contexts import TeacherContext
from lightning_sd.text.cleaning import hide_credentials


class SelfDistillCLI(LightningCLI):
    """The command line; see ``python -m lightning_sd --help``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._words: Sequence[str] = kwargs["args"]
        # The fields of dataclasses are documented below each field. Only help texts show them, and
        # reading the source of every class takes long.
        explained = any("help" in word or "print_config" in word for word in self._words)
        set_parsing_settings(docstring_parse_attribute_docstrings=explained)
        load_public_classes()
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # static in Lightning
        """Add the subcommands of :class:`~lightning_sd.cli.trainer.Trainer`.

        If the first word is a subcommand, only its parser is built, because each takes long.
        """
        own = {"model", "datamodule"}
        verbs = dict.fromkeys(("critique", "probe", "analyze", "plan"), own)
        known = {**LightningCLI.subcommands(), **verbs}
        verb = self._words[0] if self._words else ""
        return {verb: known[verb]} if verb in known else known

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse a list of words, without Lightning's warning about giving one."""
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give the context its own key, because methods differ mainly in it."""
        parser.add_lightning_class_args(
            TeacherContext, "teacher_context", subclass_mode=True, required=False
        )

    def before_instantiate_classes(self) -> None:
        """Refuse a missing checkpoint before anything is built."""
        check_checkpoint_path(self.config[self.config.subcommand].get("ckpt_path"))

    def instantiate_classes(self) -> None:
        """Build model, data and trainer, and check them against each other.

        Raises:
            ValueError: A class refuses one of its options, or two settings do not fit together.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            message = hide_credentials(condense(str(error)))
            if message == str(error):
                raise
            raise type(error)(message) from (error if is_debug() else None)
        callbacks: list[Any] = getattr(self.trainer, "callbacks")  # noqa: B009 - untyped in Lightning
        check_settings(self.config.subcommand, self.model, self.datamodule, callbacks)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Any:
        # Without a teacher_context Lightning would put a None among the callbacks.
        added = [c for c in callbacks if c is not None]
        if self.config.subcommand == "plan":  # the devices are not at hand
            config = {**config, "accelerator": "cpu", "devices": 1, "num_nodes": 1}
            config = {**config, "strategy": "auto", "logger": False}
        if self.config.subcommand == "fit":
            self._dump_config()
            added.append(ExactResume(self.config_dump))
        return super()._instantiate_trainer(config, added)

    def _parse_ckpt_path(self) -> None:
        """Keep the options of the config and the command line.

        Lightning replaces them silently with the hyperparameters in the checkpoint, except for
        ``last``.
        """

    def _run_subcommand(self, subcommand: str) -> None:
        """Find the checkpoint, and refuse one that is missing or damaged."""
        options, trainer = self.config_init[subcommand], self.trainer
        options["ckpt_path"] = find_checkpoint(
            options.get("ckpt_path"), trainer.checkpoint_callbacks, rank=trainer.global_rank
        )
        super()._run_subcommand(subcommand)


def load_public_classes() -> None:
    """Import every public class, so that YAML and the command line can name it without its module.

    jsonargparse finds a class by its bare name among the imported subclasses of a base class.
    """
    for name in lightning_sd.__all__:
        getattr(lightning_sd, name)


def main(
    args: Sequence[str] | None = None, program: str = "python -m lightning_sd"
) -> SelfDistillCLI:
    """Run the command line.

    Args:
        args: Words after the program's name. Default: those of the process.
        program: Command that starts the program, for help and errors.

    Returns:
        The CLI, with its trainer, model and data module.
    """
    install_yaml_guard()
    return SelfDistillCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        trainer_class=Trainer,
        parser_class=OneLineParser,
        auto_configure_optimizers=False,
        seed_everything_default=1,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": program, "description": "Self-distillation of language models."},
        args=resolve_words(sys.argv[1:] if args is None else args),
    )
