"""Sparse, brain-like, spiking networks from ordinary PyTorch models."""
