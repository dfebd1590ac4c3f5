"""The configuration: what it may say, what it amounts to, and what is wrong with it."""
