"""Crash runs: a real service is broken on purpose, and must lose, double and miss nothing."""
