"""The checks of a whole bundle: files, signature, graphs, and a trial in a process of its own."""
