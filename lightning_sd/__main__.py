"""``python -m lightning_sd``."""

from lightning_sd.cli import main

if __name__ == "__main__":
    main()
