"""Makes bundles of folders whose graphs other tools exported; imports no torch, diffusers or transformers."""
