"""The `nas` command, one file per group."""
