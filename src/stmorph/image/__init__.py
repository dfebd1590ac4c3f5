"""Images: opened, stain-normalised once into a store, and cut into tiles that are views of it."""
