"""python -m normexp.bench: what things cost, measured in turn; each file is one part of it."""
