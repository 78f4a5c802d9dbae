"""Finds, reads and checks the model to export, merges LoRAs into it, and adds embeddings."""
