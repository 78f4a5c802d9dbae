"""The model to export: found, read, checked, and merged with LoRAs."""
