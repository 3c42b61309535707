"""Build, train and evaluate VAEs from architectures, and search for better architectures."""
