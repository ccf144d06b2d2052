"""Tokens are ids; what people read leads back to them."""

import pytest

from tests.tiny_models import spelling
from workbench.errors import InputError
from workbench.models.prompt import Prompt, tokenise
from workbench.models.spans import spans_of
from workbench.models.vocabulary import Vocabulary, by_id, show_bytes


def sentencepiece():
    """A tokenizer as Llama's: a mark for the space, bytes written as <0xE0>, and a decoder that cuts a first space."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", "▁", "a", "b", "▁a", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = Tokenizer(models.BPE({piece: i for i, piece in enumerate(known)}, [("▁", "a")], byte_fallback=True))
    strip = decoders.Strip(" ", 1, 0)
    pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    return PreTrainedTokenizerFast(tokenizer_object=pieces)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_ids_of_the_default_model_come_back_from_what_is_shown(default_model, every):
    vocabulary, plain = default_model.vocabulary, default_model.tokenizer
    shown = [vocabulary.string(i) for i in range(vocabulary.size)]
    assert len(set(shown)) == vocabulary.size
    looked = sorted({*range(0, vocabulary.size, every), *(i for i, text in enumerate(shown) if "⟨" in text)})
    assert [vocabulary.token(shown[i]) for i in looked] == looked
    assert [vocabulary.token(by_id(i)) for i in looked] == looked
    lost = [i for i in range(vocabulary.size) if plain.encode(plain.decode([i]), add_special_tokens=False) != [i]]
    assert len(lost) == 313  # golden: what text alone does not carry
    assert all("⟨" in shown[i] for i in lost)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        ("Łódź".encode(), "Łódź"),
        ("ź".encode()[:1], "⟨C5⟩"),
        ("न".encode()[:2], "⟨E0 A4⟩"),
        ("न".encode()[2:] + "अ".encode(), "⟨A8⟩अ"),
        (b"a\x00b", "a⟨00⟩b"),
        (b"\xff\xfe", "⟨FF FE⟩"),
        (b"", ""),
        ("\ufffd".encode(), "\ufffd"),  # the character itself is text
    ],
)
def test_bytes_that_are_no_text_are_shown_as_bytes(raw, shown):
    assert show_bytes(raw) == shown


def test_characters_of_several_tokens_are_put_together(default_model):
    text = "Kłącze, नमस्ते 👩‍🚀"
    tokens = tokenise(default_model, Prompt(text, bos=False))
    assert any("⟨" in string for string in tokens.strings)
    assert default_model.vocabulary.text(tokens.ids) == text


def test_sentencepiece_keeps_the_space_and_the_bytes():
    vocabulary = Vocabulary(sentencepiece(), 300)
    ids = vocabulary.tokenizer.encode("▁ab न", add_special_tokens=False)
    assert [vocabulary.string(i) for i in (2, 4)] == ["a", " a"]  # a decoder says "a" of both
    assert vocabulary.string(5 + 0xA4) == "⟨A4⟩" and vocabulary.token("⟨A4⟩") == 5 + 0xA4
    assert vocabulary.text(ids).endswith("न")
    assert vocabulary.string(299) == "#299"  # a padded vocabulary: no such token


def test_a_byte_of_sentencepiece_is_no_letter():
    """Where bytes are written `<0xE9>`, "é" is the letter; byte-level tokenizers have it as the name of that byte."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "é", "æ", "ð"]
    known = {piece: at for at, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(known, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>"), len(pieces))
    for byte in (0xE9, 0xE6, 0xF0, 0x80):
        assert vocabulary.token(vocabulary.string(1 + byte)) == 1 + byte
    assert vocabulary.string(257) == "é" and vocabulary.token("é") == 257


def test_tokens_that_are_bytes_themselves():
    """ByT5's tokenizer: a token a byte, whose name is the character of that number, and whose decoder drops halves."""
    from transformers import ByT5Tokenizer

    vocabulary = Vocabulary(ByT5Tokenizer(), 259)
    assert [vocabulary.bytes_of(3 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert all(vocabulary.token(vocabulary.string(3 + byte)) == 3 + byte for byte in range(128, 256))
    ids = vocabulary.tokens("in 東京")
    assert vocabulary.text(ids) == "in 東京"
    assert spans_of(vocabulary, ids, "in 東京").touching("東京") == (3, 4, 5, 6, 7, 8)
    behind = spans_of(vocabulary, (1, *ids), "in 東京")  # a special token in front, and no offsets to go by
    assert behind.text == "in 東京" and behind.touching("東京") == (4, 5, 6, 7, 8, 9) and behind.ends[0] == (0, 0)


def test_ids_in_writing():
    vocabulary = Vocabulary(spelling(), 96)
    assert vocabulary.tokens("#3 #4") == (3, 4) and vocabulary.tokens("#") == vocabulary.tokens("\x23")
    for bad in ("#96", "#3 #400", ""):
        with pytest.raises(InputError):
            vocabulary.tokens(bad)
    with pytest.raises(InputError, match="no tokenizer"):
        Vocabulary(None, 96).tokens("text")
    with pytest.raises(InputError, match="text, or an id"):
        vocabulary.tokens("\udce9")


def prefixing(how):
    """Tokenizers that put a space in front of whatever they read, each family in its own way, over one vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    space = "Ġ" if how == "byte level" else "▁"
    pieces = ["<unk>", space, "h", "o", "t", "r", f"{space}h", "ho", f"{space}ho", "to", f"{space}hot", "\n", "Ċ"]
    merges = [(space, "h"), (f"{space}h", "o"), (f"{space}ho", "t"), ("h", "o"), ("t", "o")]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    marks = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if how == "normalizer":  # Llama 2's
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = marks
    elif how == "metaspace":
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(split=False), decoders.Metaspace()
    else:
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


@pytest.mark.parametrize("how", ["normalizer", "metaspace", "byte level"])
def test_a_target_is_what_follows_whatever_a_tokenizer_puts_in_front(how):
    """`" hot"` of Llama 2's was a space and ` hot`, whose summed log-probability was measured; `"to"` was ` to`."""
    vocabulary = Vocabulary(prefixing(how), 13)
    for text, ids in ((" hot", [10]), ("to", [9]), ("hoto", [7, 9]), (" ho", [8]), ("h", [2]), (" hot hot", [10, 10])):
        assert vocabulary.tokens(text) == tuple(ids), text
        assert vocabulary.tokenizer.encode(f"hot{text}", add_special_tokens=False)[-len(ids) :] == ids
    assert [vocabulary.token(vocabulary.string(i)) for i in range(1, 11)] == list(range(1, 11))


def of_moves(end=""):
    """A tokenizer of a game's moves, which puts <s> in front and knows no letter by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {"<s>": 0, "</s>": 1, "e4": 2, "e5": 3, "Nf3": 4}
    moves = Tokenizer(models.BPE(known, [], ignore_merges=True))
    moves.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("<s>", 0), ("</s>", 1)]
    moves.post_processor = processors.TemplateProcessing(f"<s> $A {end}".strip(), special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=moves, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("end", ["", "</s>"])
def test_a_tokenizer_that_knows_no_letter_is_asked_with_its_own_words(end):
    tokenizer = of_moves(end)
    plain = tokenizer("e5 Nf3")["input_ids"]
    assert Vocabulary(tokenizer, 5).prefix == (0,) == tuple(plain[:1])


def test_what_a_held_tokenizer_learns_makes_another_key():
    tokenizer = spelling()
    vocabulary = Vocabulary(tokenizer, 128)
    seen = [vocabulary.digest]
    tokenizer.add_tokens(["Dvorak"])
    seen.append(vocabulary.digest)
    assert vocabulary.token("Dvorak") == 96
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    seen.append(vocabulary.digest)
    assert len(set(seen)) == 3 and vocabulary.digest == Vocabulary(tokenizer, 128).digest == seen[-1]
