"""Tests of the house itself: packaging, documents, embedded servers."""
