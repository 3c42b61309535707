"""A study in its storage and its folder."""
