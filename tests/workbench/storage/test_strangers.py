"""Files of results that strangers made, or that time damaged: one sentence, no other file's bytes, little memory."""

import contextlib
import io
import json
import resource
import struct
import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.long_run import examples
from workbench import dataset, difference, open_result, save
from workbench.errors import InputError, WorkbenchError
from workbench.files import unsealed
from workbench.storage import inspection
from workbench.storage.heaps import need_sound_heaps
from workbench.storage.netcdf import decoded, encoded


def example(value: float = 0.5):
    result = dataset(
        coords={"token_text": ("pos", ["a", "ü", "東"])},
        score=("layer pos", np.full((2, 3), value), "share", (0, 1), "a score"),
        rank=("pos", np.array([1, -1, 2]), "count", (0, None)),
        word=("pos", ["x", "y", "z"], "text", None),
        total=("", 1.5, "nats", None),
    )
    record = {"analysis": "x", "model": {"name": "m"}, "token_ids": [1, 2, 3], "params": {"k": 1}}
    return result.assign_attrs(provenance=json.dumps(record), summary="Half.", title="X")


def changed(path, change) -> None:
    """Save a result and change the file as a program other than ours would."""
    bare, _ = unsealed(save(example(), path).read_bytes())
    held = io.BytesIO(bare)
    with h5py.File(held, "r+") as file:
        change(file)
    path.write_bytes(held.getvalue())


def external(file) -> None:
    file.create_dataset("host", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(file) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (3,))
    file.create_virtual_dataset("far", layout)


def outward(file) -> None:
    file["out"] = h5py.ExternalLink("/etc/other.h5", "/x")


def soft(file) -> None:
    file["loop"] = h5py.SoftLink("/loop")


def circle(file) -> None:
    group = file.create_group("g")
    group["again"] = group


def root_circle(file) -> None:
    file["again"] = file["/"]


def unwritten(file) -> None:
    file.create_dataset("vast", (1 << 34,), "f8", chunks=(1 << 20,), compression="gzip")


def odd_filter(file) -> None:
    made = file.create_dataset("packed", (100,), "f8", chunks=(100,), compression="lzf")
    made[:] = 1


def compound(file) -> None:
    file.create_dataset("pairs", (3,), np.dtype([("a", "f4"), ("b", "i4")]))


def huge_text(file) -> None:
    """One text among cells that take no room in the file, which may all be it."""
    made = file.create_dataset("said", (1 << 24,), h5py.string_dtype(), chunks=(1 << 10,))
    made[0] = "x"


def deep_provenance(file) -> None:
    file.attrs["provenance"] = "[" * 100_000


def list_provenance(file) -> None:
    file.attrs["provenance"] = "[1, 2]"


def odd_model(file) -> None:
    file.attrs["provenance"] = json.dumps({"analysis": "x", "model": "gpt"})


def odd_ids(file) -> None:
    file.attrs["provenance"] = json.dumps({"analysis": "x", "token_ids": {"a": 1}})


def odd_difference(file) -> None:
    file.attrs["provenance"] = json.dumps({"analysis": "x", "difference": {"from": 3}})


def binary_provenance(file) -> None:
    file.attrs["provenance"] = np.arange(5)


def text_range(file) -> None:
    file["score"].attrs["valid_max"] = "much"


def turned_range(file) -> None:
    file["score"].attrs["valid_max"] = -np.inf


def nameless_dim(file) -> None:
    file.create_dataset("more", (5,), "f4")


def no_units(file) -> None:
    del file["score"].attrs["units"]


CHANGES = [
    (external, "in another file"), (virtual, "in another file"), (outward, "out of its place"),
    (soft, "out of its place"), (circle, "no variable"), (root_circle, "no variable"), (unwritten, "bytes of values"),
    (odd_filter, "filter of another kind"), (compound, "numbers or texts"), (deep_provenance, "no JSON"),
    (list_provenance, "no object"), (odd_model, "another model"), (odd_ids, "another token_ids"),
    (odd_difference, "both ends"), (binary_provenance, "of another kind"), (text_range, "valid_max"),
    (no_units, "without units"), (turned_range, "a range"), (nameless_dim, "the dim 'phony_dim"),
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda change: getattr(change, "__name__", ""))
def test_what_no_result_has_is_refused_before_a_value_is_touched(tmp_path, change, said):
    path = tmp_path / "a.nc"
    changed(path, change)
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as refused:
            open_result(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert said in str(refused.value) and str(path) in str(refused.value) and len(str(refused.value)) < 900


@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, 8), (1, 2**63), (1, 2**64 - 16)])
def test_a_heap_that_leads_nowhere_is_refused_before_it_is_walked(tmp_path, index, size):
    """HDF5 stays in one place for ever on some of these, and holds Python's lock meanwhile."""
    path = tmp_path / "a.nc"
    content = bytearray(unsealed(save(example(), path).read_bytes())[0])
    struct.pack_into("<HH4xQ", content, content.index(b"GCOL") + 16, index, 0, size)
    path.write_bytes(content)
    with pytest.raises(InputError, match="without an end"):
        open_result(path)


def test_texts_that_share_one_long_text_cost_no_more_than_their_bound(tmp_path):
    path = tmp_path / "a.nc"
    changed(path, huge_text)
    with pytest.raises(InputError, match="texts in 'said'"):
        open_result(path)


def test_as_many_texts_as_a_long_prompt_has_are_taken(monkeypatch):
    """The ten likeliest tokens at each depth of 3,400 tokens are more than a million: bounded by what the file holds,
    not by a number. What is written must be read again."""
    monkeypatch.setattr(inspection, "_TEXTS", 100)
    made = dataset(None, said=("edge", np.array([f" word {i % 7}" for i in range(3000)], dtype=object), "text", None))
    assert decoded(encoded(made, "k"), kept_as="k").identical(made)


@pytest.mark.parametrize("texts", [["a"], ["", "x" * 5000, "ü" * 9]])
def test_the_longest_text_of_a_file_is_known_before_any_is_read(texts):
    made = dataset(None, said=("edge", np.array(texts, dtype=object), "text", None))
    longest = max(len(text.encode()) for text in texts)
    assert longest <= need_sound_heaps(encoded(made)) < longest + 5000  # provenance and names are objects, too


def test_a_compressed_copy_of_a_result_is_taken(tmp_path):
    path = tmp_path / "a.nc"
    kinds = {"score": {"zlib": True, "complevel": 4}, "rank": {"zlib": True}}
    example().to_netcdf(path, engine="h5netcdf", encoding=kinds)
    assert open_result(path)["score"].values.tolist() == example()["score"].values.tolist()


def test_a_result_of_another_program_without_a_seal_is_taken(tmp_path):
    path = tmp_path / "a.nc"
    changed(path, lambda file: None)
    assert unsealed(path.read_bytes())[1] is None and open_result(path)["rank"].values.tolist() == [1, -1, 2]


def test_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path):
    """Every 97th byte, a bit each: with the seal on it no number may change without a word."""
    content = save(example(), tmp_path / "a.nc").read_bytes()
    for at in range(0, len(content) - 83, 97):  # the seal itself, 83 bytes, is about the bytes before it
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        (tmp_path / "b.nc").write_bytes(flipped)
        with pytest.raises(InputError, match="not as it was written"):
            open_result(tmp_path / "b.nc")


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_changed_bytes_end_in_another_error(tmp_path_factory, data):
    """Files without a seal, as strangers make them, with bytes changed, cut or joined; and compared with a good one."""
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(unsealed(save(example(), folder / "a.nc").read_bytes())[0])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    (folder / "b.nc").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(WorkbenchError):
        difference(open_result(folder / "b.nc"), example(0.25))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512_000  # kilobytes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = ["model", "prompts", "token_ids", "interventions", "analysis", "params", "spec_key", "stamp", "difference"]


@settings(max_examples=examples(60), deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_no_provenance_ends_in_another_error(given_record):
    odd = example().assign_attrs(provenance=json.dumps({"analysis": "x"} | given_record))
    for pair in ((odd, example()), (example(), odd)):
        with contextlib.suppress(WorkbenchError):
            difference(*pair)
