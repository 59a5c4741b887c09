"""python -m raypipe: the program without its installed script."""

from raypipe.program import program

program()
