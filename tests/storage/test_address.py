"""An address is masked as text of every kind, and opens only for whoever reveals it."""

from __future__ import annotations

import copy
import json
import logging
import pickle

import pyarrow.fs as pafs
import pytest
import yaml
from pydantic import ValidationError

from raypipe.config import Config, ConfigError, digest, flatten, to_yaml
from raypipe.recipe.space import Sweep
from raypipe.storage.address import Address, addresses, masks_allowed, typed_addresses
from raypipe.storage.artifacts import Store
from raypipe.storage.bucket_files import BucketFiles, bucket_files, opened

TYPED = "s3://AKIA:hush@bucket/x?secret_key=hush&region=eu-west-1"
SHOWN = "s3://***@bucket/x?secret_key=***&region=***"


class Place(Config):
    where: Address | None = None
    others: tuple[Address, ...] = ()


def test_everything_that_prints_an_address_prints_the_mask(caplog):
    address = Address(TYPED)
    logging.getLogger("x").warning("%s %r", address, address)
    texts = [
        *(str(address), repr(address), f"{address}", f"{address!r}", "%s" % address),  # noqa: UP031
        *("" + address, "".join([address]), json.dumps({"a": address}), caplog.text),
        *(yaml.safe_dump(str(address)), repr(Store(TYPED)), str(ConfigError(address))),
        *(str(address.encode()), address.upper(), " ".join(address.split("/"))),
        *(repr(pickle.dumps(address)), repr(pickle.dumps(Store(TYPED)))),
    ]
    assert [text for text in texts if "hush" in text.lower()] == []
    assert str(address) == SHOWN and address.reveal() == TYPED and address.hides


def test_a_configuration_shows_and_keeps_the_mask():
    place = Place(where=TYPED, others=(TYPED, "/data"))
    texts = [repr(place), str(place), to_yaml(place), place.model_dump_json()]
    texts += [json.dumps(flatten(place)), json.dumps(place.semantic())]
    assert [text for text in texts if "hush" in text] == []
    assert yaml.safe_load(to_yaml(place))["where"] == SHOWN
    for same in (place.replace(), Place.model_validate(place.model_dump()), copy.deepcopy(place)):
        assert same.where is not None and same.where.reveal() == TYPED
    assert [each.reveal() for each in addresses(place)] == [TYPED, TYPED, "/data"]
    assert digest(Place(where="/data")) != digest(place)


def test_an_error_of_pydantics_shows_no_input():
    for wrong in ({"where": [TYPED]}, {"wher": TYPED}, {"where": TYPED, "others": 7}):
        with pytest.raises(ValidationError) as caught:
            Place(**wrong)
        assert "hush" not in str(caught.value)


def test_a_masked_address_is_refused_by_name():
    for load in (Address, Store, lambda text: Place(where=text)):
        with pytest.raises(ValueError, match=r"'s3://\*\*\*@bucket/x.*' is masked: .* type them"):
            load(SHOWN)
    with masks_allowed():
        masked = Address(SHOWN)
    with pytest.raises(ConfigError, match=r"is masked, and no job that lives knows its keys"):
        masked.reveal()


def test_a_pickle_of_another_process_opens_nothing():
    received = pickle.loads(pickle.dumps(Address(TYPED)))
    assert str(received) == SHOWN and received.hides
    with pytest.raises(ConfigError, match="no job that lives knows its keys"):
        received.reveal()
    plain = pickle.loads(pickle.dumps(Address("/data")))
    assert plain.reveal() == "/data" and not plain.hides


def test_addresses_are_equal_that_were_typed_alike():
    address, other = Address(TYPED), Address(TYPED.replace("hush", "rush"))
    assert address == TYPED and address == Address(TYPED) and address != other
    assert hash(address) == hash(Address(TYPED)) and str(address) == str(other)
    assert address.handle == Address(TYPED).handle != other.handle
    assert Store(TYPED) == Store(TYPED) != Store("/data")


def test_what_raypipe_appends_is_not_masked():
    run = "runs/0123456789abcdef0123456789abcdef"
    assert Address(TYPED).shown_below(run) == f"s3://***@bucket/x/{run}?secret_key=***&region=***"
    assert Address(TYPED).below(".tune").reveal() == TYPED.replace("/x", "/x/.tune")
    assert Address("http://me:hush@host:5000/a?b=c#d").place == "http://host:5000/a"
    assert Address("http://host/a#d").place == "http://host/a"


def test_words_of_others_lose_the_parts_of_the_address():
    address = Address("https://host/v1/api-key/hu%2Fsh/x?code=ssshhh")
    said = "404: no hu/sh at /v1/api-key/hu%2Fsh/x?code=ssshhh on host"
    assert address.clean(said) == "404: no *** at /v1/api-key/***/x?code=*** on host"


def test_the_space_of_a_sweep_has_addresses():
    space = {"teacher.engine.url": {"a": TYPED}, "teacher": [{"engine": {"url": TYPED}}]}
    assert "hush" not in json.dumps(typed_addresses(space))
    assert [each.reveal() for each in addresses(typed_addresses(space))] == [TYPED, TYPED]
    assert [type(label) for label in Sweep(space={"a.url": [TYPED]}).axes()[0].values] == [str]
    assert typed_addresses({"prompt": [TYPED], "seed": [1]}) == {"prompt": [TYPED], "seed": [1]}


def test_a_file_system_with_keys_is_pickled_without_them(tmp_path):
    (tmp_path / "a").mkdir()
    fs = bucket_files(Address(TYPED), pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))
    assert b"hush" not in pickle.dumps(fs) and isinstance(opened(fs), pafs.SubTreeFileSystem)
    with fs.open_output_stream("a/one") as out:
        out.write(b"1")
    fs.copy_file("a/one", "a/two")
    fs.move("a/two", "a/three")
    with fs.open_input_file("a/three") as stream:
        assert stream.read() == b"1"
    names = [info.path for info in fs.get_file_info(pafs.FileSelector("a"))]
    assert sorted(names) == ["a/one", "a/three"]
    with pytest.raises(FileNotFoundError):
        fs.open_input_stream("a/none")
    fs.delete_dir("a")
    assert fs.get_file_info("a").type == pafs.FileType.NotFound
    plain = pafs.LocalFileSystem()
    assert bucket_files(Address("s3://bucket"), plain) is plain is opened(plain)
    assert BucketFiles(Address(TYPED), plain) == BucketFiles(Address(TYPED), plain)


def test_an_address_that_cannot_be_parsed_is_an_error_without_it():
    with pytest.raises(
        ConfigError, match=r"storage s3://\*\*\*@bucket: expected .* found"
    ) as caught:
        Store("s3://AKIA:hu sh@bucket").fs  # noqa: B018
    assert "hu" not in str(caught.value).replace("should", "")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
