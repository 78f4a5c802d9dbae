"""Pictures outside the networks: opened, fitted, masked, previewed, laid out in sheets, written as PNG."""
