"""Studies under fire: processes are killed at chosen and at random moments, then all is checked."""
