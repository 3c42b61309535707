"""Opening the storage that a study is kept in: a journal file or a database."""
