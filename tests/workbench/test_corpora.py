"""Corpora: what a document and a corpus say of themselves, copies, splits, and bad files."""

import pytest

from workbench.corpora import (
    Corpus,
    Document,
    deduplicated,
    hub_corpus,
    python_corpus,
    python_domains,
    python_topic,
    text_corpus,
)
from workbench.errors import InputError, UnavailableError

WORDS = [f"word{i}" for i in range(400)]


@pytest.fixture(scope="module")
def python():
    return python_corpus()


def test_a_document_names_its_bytes():
    document = Document("a", "abc")  # the test vector of the standard
    assert document.digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert document != Document("a", "abd")
    assert str(python_topic("execmodel")).startswith("python-execmodel@")


def test_the_python_corpus_is_the_same_every_time_and_large_enough(python):
    assert python.digest == python_corpus().digest and python.python
    assert sum(len(document.text) for document in python.documents) > 300_000
    assert {document.name.split("-")[0] for document in python.documents} == {"topic", "docstrings", "source"}
    assert all(document.python == python.python for document in python.documents)


def test_no_document_of_the_test_part_is_an_extract_of_the_training_part(python):
    parts = python.split()

    def runs(text):
        words = text.split()
        return {tuple(words[i : i + 16]) for i in range(len(words) - 15)}

    train = set().union(*(runs(d.text) for d in parts["train"].documents))
    seen = sum(len(runs(d.text) & train) for d in parts["test"].documents)
    assert seen / sum(len(runs(d.text)) for d in parts["test"].documents) < 0.05


def test_a_split_is_by_document_whole_and_stable(python):
    parts = python.split()
    names = [d.name for part in parts.values() for d in part.documents]
    assert sorted(names) == sorted(d.name for d in python.documents) and len(set(names)) == len(names)
    assert len(parts["train"]) > 2 * len(parts["test"]) > 2 * len(parts["val"])
    assert python.split(seed=1)["test"].digest != parts["test"].digest
    fewer = Corpus("python", python.documents[1:]).split()["test"]
    same = {d.name for d in fewer.documents} & {d.name for d in parts["test"].documents}
    assert len(same) >= len(parts["test"]) - 2


def test_planted_copies_are_left_out_and_the_larger_one_is_kept():
    whole = Document("whole", " ".join(WORDS[:300]))
    extract = Document("extract", " ".join(WORDS[100:200]))
    overlap = Document("overlap", " ".join(WORDS[280:400]))  # 20 of 120 words are shared: 5 runs of 105
    assert [d.name for d in deduplicated([extract, whole, overlap])] == ["whole", "overlap"]


def test_files_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text(" ".join(WORDS), encoding="utf-8")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe")
    (tmp_path / "c.md").write_text("Grüße", encoding="utf-8")
    assert [d.name.rsplit("/")[-1] for d in text_corpus([tmp_path]).documents] == ["a.txt", "c.md"]
    with pytest.raises(InputError, match="UTF-8"):
        text_corpus([tmp_path / "b.bin"])
    with pytest.raises(UnavailableError, match="no readable file"):
        text_corpus([tmp_path / "missing.txt"])
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(InputError, match="no text"):
        text_corpus([tmp_path / "empty.txt"])


def test_each_row_of_a_table_is_a_document(tmp_path):
    """A table was read as one text, with its commas and the names of its columns."""
    (tmp_path / "own.csv").write_text('id,text\n1,"a poem,\nwith a break"\n2,another\n3,\n', encoding="utf-8")
    (tmp_path / "own.jsonl").write_text('{"prompt": "one"}\n"two"\n', encoding="utf-8")
    found = text_corpus([tmp_path / "own.csv", tmp_path / "own.jsonl"])
    assert [d.text for d in found.documents] == ["a poem,\nwith a break", "another", "one", "two"]
    assert found.documents[0].name.endswith("own.csv line 2")
    (tmp_path / "odd.csv").write_text("id,review\n1,good\n", encoding="utf-8")
    with pytest.raises(InputError, match=r'line 2 of .*odd.csv without a text; expected a column "text"'):
        text_corpus([tmp_path / "odd.csv"])


def test_too_few_documents_and_no_network():
    with pytest.raises(InputError, match="at least 3"):
        Corpus("two", (Document("a", "x"), Document("b", "y"))).split()
    with pytest.raises(InputError, match="network"):
        hub_corpus("someone/something")


def test_the_two_domains_are_prose_and_code_without_copies():
    domains = python_domains()
    assert domains.keys() == {"prose", "code"} and min(map(len, domains.values())) >= 50
    for name, corpus in domains.items():
        assert len({document.name for document in corpus.documents}) == len(corpus)
        assert all(800 <= len(document.text) <= 4000 for document in corpus.documents)
        starts = [document.text.startswith(("def ", "class ", "async def ", "@")) for document in corpus.documents]
        assert sum(starts) == (len(corpus) if name == "code" else 0)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "no/such/folder"])
def test_what_can_be_no_path_is_said(name):
    with pytest.raises(UnavailableError, match="no readable file"):
        text_corpus([name])
