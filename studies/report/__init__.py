"""The report of a study: words, tables, figures."""
