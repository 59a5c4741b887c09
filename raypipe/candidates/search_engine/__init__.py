"""A live search engine as a candidate source: `source` asks it in the `protocols` it speaks."""
