"""Tracked runs on MLflow: the only package that imports mlflow, and only inside functions.

`spool` keeps what a job says on disk, `sender` carries it to the `server` with the `patience` that
a call deserves, `recorder` has the verbs that jobs use, `reading` gives tracked runs back. `pyfunc`
is the file that MLflow stores with a model. `python -m raypipe.tracking` opens the MLflow UI on the
store that jobs write to.
"""
