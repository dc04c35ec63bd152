"""``python -m lightning_sd``."""

import os
import sys


def main() -> None:
    """Look after a critique cache if asked to, else run the Lightning CLI."""
    # Large tensors on huge pages: a CPU step of a real model then takes a third of the page faults.
    # torch reads this once, before its first large allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    words = sys.argv[1:]
    if words[:1] == ["critique"] and len(words) > 1 and not words[1].startswith("-"):
        from lightning_sd.cli.cache import main as cache_main

        cache_main(words[1:])
    else:
        from lightning_sd.cli.main import main as cli_main

        cli_main()


if __name__ == "__main__":
    main()
