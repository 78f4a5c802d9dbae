"""The bundle: its format, its rules, and its files. No engine is opened in here."""
