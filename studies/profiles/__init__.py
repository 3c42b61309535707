"""The pages of `nas profile`."""
