"""``python -m lightning_sd``, the same as the command ``lightning-sd``."""

import sys


def main() -> None:
    """Run the command line with the arguments of the process."""
    from lightning_sd.cli.run import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
