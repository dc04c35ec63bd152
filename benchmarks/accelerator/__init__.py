"""One command that checks and measures the package on an accelerator."""
