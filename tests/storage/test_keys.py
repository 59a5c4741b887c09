"""Keys of addresses reach the processes of a job, by an actor and by nothing that is written."""

from __future__ import annotations

import pickle

import pytest

from raypipe.storage.address import Address
from raypipe.storage.artifacts import Store
from raypipe.storage.keys import share, typed

TYPED = "s3://AKIA:hush@bucket/x"


def test_without_a_cluster_nobody_knows():
    assert typed("0" * 32) is None


@pytest.mark.ray
def test_a_worker_opens_what_was_pickled_masked(cluster):
    import ray

    address, other = Address(TYPED), Address(TYPED.replace("hush", "rush"))
    handles = {each.handle: each.reveal() for each in (address, other)}

    @ray.remote(num_cpus=0)
    def revealed(store: Store) -> tuple[str, str]:
        return store.uri.reveal(), repr(store)

    assert share({}) is None
    first = share({address.handle: TYPED})
    assert ray.get(revealed.remote(Store(TYPED))) == (TYPED, "Store(uri='s3://***@bucket/x')")
    kept = share(handles)  # of the same job: the actor that is there
    assert ray.get(revealed.remote(Store(other)))[0] == other.reveal()
    ray.kill(first, no_restart=False)  # it comes again, with what it was started with
    assert pickle.loads(pickle.dumps(address)).reveal() == TYPED
    assert typed("0" * 32) is None
    ray.kill(kept)
