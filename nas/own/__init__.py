"""Parts of the user's own: objectives, losses, data sets and recipes, named by import strings."""
