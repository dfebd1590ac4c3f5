"""What a study would cost, before it is spent."""
