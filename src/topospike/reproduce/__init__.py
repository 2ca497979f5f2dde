"""Reproduce: the published numbers, a recipe for each, and ours beside them."""
