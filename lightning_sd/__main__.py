"""``python -m lightning_sd``, the same as the command ``lightning-sd``."""

import os
import sys


def main() -> None:
    """Run the command line with the arguments of the process."""
    from lightning_sd.cli.run import run

    try:
        run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
