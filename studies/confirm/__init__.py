"""Confirm the models that may be best: train them again with further seeds."""
