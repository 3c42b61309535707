"""Measurements on another machine, the target, which is reached through OpenSSH."""
