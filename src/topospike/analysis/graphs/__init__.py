"""Stage analyse: from masks to one graph, and random graphs to compare it with."""
