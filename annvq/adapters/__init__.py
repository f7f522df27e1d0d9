"""annvq as the vector store of other libraries: LangChain, LlamaIndex, Haystack and txtai.

Each has a module here of its own, which imports that library; ``docs/adapters.md`` says how they are used. All of them
are built on :class:`~annvq.adapters.growing.GrowingIndex`, and those that keep documents on
:class:`~annvq.adapters.collection.Collection`.
"""
