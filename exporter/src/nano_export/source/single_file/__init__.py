"""Reads a model from one safetensors file in the original layout, and finds what such a file does not hold."""
