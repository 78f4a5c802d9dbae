"""What each graph of a bundle is asked, and what it answers: prompts, timesteps, latents, pixels."""
