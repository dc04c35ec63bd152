"""Does it matter whether feedback is aligned with the student's own steps? See README.md."""
