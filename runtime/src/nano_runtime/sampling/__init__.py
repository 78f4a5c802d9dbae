"""Noise schedules, samplers and the denoising loop, in numpy alone: no prompts, files or engines."""
