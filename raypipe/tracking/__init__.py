"""Tracked runs on MLflow: the only package that imports mlflow, and only inside functions.

`recorder` has the verbs that jobs use, and `relay` offers them to every process of a cluster.
`section` is what a recipe says of tracking, and `opening` asks a server before work whether it
takes records. `spool` keeps a job's records on disk, `sender` carries them to the `server`, with
the `patience` that a call deserves. `stored_runs` reads tracked runs back. `models` writes
checkpoints as MLflow models, with `pyfunc` inside, `uploads` brings them to the server, and
`registered` knows versions. `python -m raypipe.tracking` opens the MLflow UI on the store that jobs
write to.
"""

from raypipe.tracking.models import save_pyfunc

__all__ = ["save_pyfunc"]  # model cards tell their readers to import it from here
