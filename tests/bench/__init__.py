"""Measurements of the running service; `python -m tests.bench`, never part of `make test`."""
