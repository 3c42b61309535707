"""Smaller models from trained ones: pruning and distillation."""
