"""Models: the networks that recipes name, each from a few sizes."""
