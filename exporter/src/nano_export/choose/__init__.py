"""What a bundle draws with by default, measured: its sampler and steps, its presets, its preview matrix."""
