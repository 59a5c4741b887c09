"""Published files with a teacher's judgements: streamed, joined with the lists, counted.

`wanted` knows what to keep, `join` puts blocks and lists together; `rankgpt`, `pairs`, `scores` and
`run_file` are the steps, `configs` what recipes name.
"""
