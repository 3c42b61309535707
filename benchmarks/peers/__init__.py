"""Searches of other frameworks on the tables of `nas bench`."""
