"""What a model answers and how it is judged: one task, one file."""
