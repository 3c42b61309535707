"""The paper's table, figures and claims, made again: one question per file."""
