"""Programs that compare training recipes, from which the default recipe was chosen."""
