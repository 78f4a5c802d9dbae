"""Draws the original's pictures, and measures the distance of the bundle's."""
