"""The loop of a study, and who evaluates for it."""
