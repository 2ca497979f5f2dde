"""Stage analyse: the network science of a sparse topology."""
