"""One call of the pipeline: its plan, its start, its groups of pictures, and its events."""
