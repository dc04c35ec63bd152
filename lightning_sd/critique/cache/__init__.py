"""The on-disk cache of critiques. It imports neither torch nor Lightning."""
