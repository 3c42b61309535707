"""Why one architecture is slower than another, by cause."""
