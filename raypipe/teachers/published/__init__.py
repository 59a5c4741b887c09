"""Published files with a teacher's judgements: streamed, joined with the lists, counted.

`wanted` numbers the pairs that are kept, `join` finds them in a file; `scores`, `pair_scores`,
`rankgpt`, `run_file` and `file_scores` are the teachers that a recipe names.
"""
