"""Tests of the fold, the worker and the sweep, on real Postgres and Valkey."""
