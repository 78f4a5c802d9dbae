"""Measures a bundle's defaults: sampler and steps, quality presets, preview matrix."""
