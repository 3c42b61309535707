"""The record of a study, and the values, tables and texts derived from it."""
