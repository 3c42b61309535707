"""Studies from Python: run and open them, look at them, load their models."""
