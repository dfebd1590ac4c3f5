"""What is known of a slide before anything is trained on it: whether picture and expression fit, what was lost, why.

Nothing here chooses anything: no step that trains, samples or scores reads these files.
"""
