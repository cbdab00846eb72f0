"""The kinds of tasks: how a task becomes prompts, and its responses become measures."""
