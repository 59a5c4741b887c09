"""Training in pure torch: no Ray, no mining, no evaluation."""
