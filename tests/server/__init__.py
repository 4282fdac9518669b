"""Tests of the street door."""
