"""Everything ``nano-bundle verify`` checks, as library calls."""
