"""How the embedded solver was made: ``python -m lightning_sd.tasks.recipe --out DIR``."""
