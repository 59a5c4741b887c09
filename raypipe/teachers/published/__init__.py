"""Published files with a teacher's judgements: streamed, joined with the lists, counted.

`wanted` numbers the pairs that are kept, `join` finds them in a file; `scores`, `pair_scores`,
`rankgpt` and `run_file` are the teachers that a recipe names.
"""
