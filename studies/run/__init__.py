"""The loop of a study, and the crews that evaluate for it."""
