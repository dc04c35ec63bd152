"""The critique cache on disk. It imports neither torch nor Lightning."""
