"""Files that models are read from, and those that we keep.

`checkpoint` reads directories in Hugging Face format, `gguf` converts its own, `adapters` merges what lies beside base
weights. What we made is sealed (`kept`) and held against sha256 of its files (`digests`) before it is used.
"""
