"""Stand-ins for what is slow or needs hardware, made from the real models."""
