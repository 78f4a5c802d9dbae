"""Writes the bundle, and puts it in its place."""
