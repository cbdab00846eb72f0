"""mergekit's own recipes (YAML, mergekit 0.1.5) read as runs of this repository."""
