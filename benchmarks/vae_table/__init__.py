"""Programs that make the table of trained VAEs: each architecture of the space `table`."""
