"""What can be built: architectures, the spaces they come from, the two reference points."""
