"""Model checkpoints on disk: where they are, what they hold, whether they fit together."""
