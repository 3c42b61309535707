"""Print lines and tables on a terminal, into a pipe or into a file."""
