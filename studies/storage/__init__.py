"""Open the storage of a study: a journal file or a database."""
