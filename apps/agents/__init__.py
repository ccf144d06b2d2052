"""For programs and agents: the workbench as tools of the Model Context Protocol, over standard input and output.

`desk` holds a model and results, with limits; `tools` says what can be asked of it, each with a JSON schema; `server`
speaks the protocol, by the official SDK. Nothing listens on a network. Read `tools` first.
"""
