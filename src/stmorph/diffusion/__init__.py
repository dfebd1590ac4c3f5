"""Denoising diffusion: schedule, losses and samplers shared by the methods that use them."""
