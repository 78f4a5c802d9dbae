"""Reads what changes a checkpoint before its graphs are traced: LoRAs and textual inversions."""
