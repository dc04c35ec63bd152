"""How the embedded solver was made: ``python -m lightning_sd.lab.recipe --out DIR``."""
