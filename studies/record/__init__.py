"""What a study found: records, and what follows from them."""
