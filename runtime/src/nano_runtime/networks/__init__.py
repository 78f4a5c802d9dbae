"""The inputs and outputs of each graph in a bundle: prompts, timesteps, latents, pixels."""
