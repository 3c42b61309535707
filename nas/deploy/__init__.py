"""A trained model in the form in which it is deployed: variants, built, judged and timed."""
