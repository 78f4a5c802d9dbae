"""Finds, reads and checks the model to export, and merges LoRAs into it."""
