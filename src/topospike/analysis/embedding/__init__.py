"""Stage analyse: coalescent embedding, and what distances in the hyperbolic disk say."""
