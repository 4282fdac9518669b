"""Tests of Sightline: one folder a room, plus laws, journeys, house and bench."""
