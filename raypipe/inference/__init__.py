"""Running models over texts: tokens, pairs, scores and embeddings."""
