"""The bundle's format and the rules for reading one. No engine is opened in here."""
