"""Journeys: whole ways through the product, as someone outside walks them."""
