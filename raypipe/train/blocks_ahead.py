"""The blocks of the next step, made by a thread while the device takes this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from raypipe.train.batches import Batcher, Block


class BlocksAhead:
    """Gives blocks of rows; what is expected next is made meanwhile.

    Args:
        threads: whether anything is made ahead. On CPU that would take cores from the model.
    """

    def __init__(self, *, threads: bool) -> None:
        self._pool = ThreadPoolExecutor(1) if threads else None
        self._coming: tuple[Batcher, list[int], Future[list[Block]]] | None = None

    def take(self, batcher: Batcher, rows: list[int], following: list[int] | None) -> list[Block]:
        """The blocks of `rows`, equal to `batcher.blocks(rows)`.

        Args:
            following: the rows that are expected next; None where nobody knows.
        """
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] is batcher and coming[1] == rows:
            blocks = coming[2].result()
        else:
            blocks = list(batcher.blocks(rows))
        if self._pool is not None and following is not None:
            future = self._pool.submit(lambda: list(batcher.blocks(following)))
            self._coming = batcher, following, future
        return blocks
