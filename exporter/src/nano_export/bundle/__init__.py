"""The bundle's folder: contents, card, manifest, and its atomic publication."""
