"""Dense retrieval: the vectors of `inference.embeddings`, searched exactly or by a FAISS index."""
