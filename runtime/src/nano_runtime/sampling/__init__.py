"""Noise schedules, samplers and the denoising loop, in numpy only. This room knows no prompts, files or engines."""
