"""Language models as teachers: what they are asked and how their answers become values."""
