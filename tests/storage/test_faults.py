"""A full disk is a sentence; a fault of ours stays a traceback."""

from __future__ import annotations

import errno

import pytest
from obstore.exceptions import GenericError

from raypipe.storage.faults import of_the_storage

GOES_ON = "what was finished stays, and the same command goes on"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_s_error_has_a_remedy(number):
    sentence = of_the_storage(OSError(number, "no more", "/data/storage/x"))
    assert "/data/storage/x" in sentence and "storage=" in sentence and GOES_ON in sentence


def test_an_error_of_a_task_on_ray_is_that_of_its_cause():
    from ray.exceptions import RayTaskError

    full = OSError(errno.ENOSPC, "No space left on device")
    told = RayTaskError("f", "Traceback\n  long", full).as_instanceof_cause()
    assert of_the_storage(told).startswith("[Errno 28] No space left on device; free space")
    chained = RuntimeError("the trial failed")
    chained.__cause__ = full
    assert of_the_storage(chained) == of_the_storage(full)


def test_a_bucket_s_error_hides_its_keys():
    sentence = of_the_storage(GenericError("PUT s3://key:secret@bucket/a failed"))
    assert "secret" not in sentence and GOES_ON in sentence


@pytest.mark.parametrize("error", [KeyError("a"), FileNotFoundError(2, "no file"), ValueError("b")])
def test_a_fault_of_ours_is_none_of_the_storage(error):
    assert of_the_storage(error) is None
