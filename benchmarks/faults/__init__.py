"""A test by faults: processes of studies are killed, and then the studies are checked."""
