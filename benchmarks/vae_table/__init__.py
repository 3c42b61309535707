"""The table of trained VAEs: every architecture of the space `table`, epoch by epoch."""
