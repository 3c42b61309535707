"""Malformed inputs for every command, option and kind of file of `nas`."""
