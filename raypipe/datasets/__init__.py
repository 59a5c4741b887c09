"""Collections, queries and judgements, from wherever people keep them."""
