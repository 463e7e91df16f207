"""What happens in a run: the loop, optimization, evaluation, checkpoints and logging."""
