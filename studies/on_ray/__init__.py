"""A study whose candidates are evaluated as trials of Ray Tune."""
