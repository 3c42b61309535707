"""The figures of docs/deployment.md."""
