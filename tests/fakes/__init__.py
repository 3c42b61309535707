"""Stand-ins for what is slow or needs hardware, built from the real models."""
