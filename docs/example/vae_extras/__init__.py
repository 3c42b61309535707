"""Parts for vae-nas: name them in a study as `vae_extras.metrics:sharpness`."""
