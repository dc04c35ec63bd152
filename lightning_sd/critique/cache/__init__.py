"""The critique cache, on disk or on a server. It imports neither torch nor Lightning."""
