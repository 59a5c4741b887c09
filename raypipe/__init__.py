"""From a document collection to trained, evaluated neural rankers, as batch jobs on Ray."""
