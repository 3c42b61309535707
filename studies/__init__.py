"""Ask the question: run, store, compare and draw multi-objective studies; the `nas` command."""
