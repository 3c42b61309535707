"""Parts of the user's own by import strings: objectives, losses, data sets, recipes, blocks."""
