"""annvq as the vector store of other libraries: LangChain, LlamaIndex, Haystack and txtai.

Each has a module here of its own, which imports that library; ``docs/adapters.md`` says how they are used. All of them
are built on :class:`~annvq.adapters.growing.GrowingIndex`, and those that keep documents on
:class:`~annvq.adapters.collection.Collection`. They load on first use.
"""

from typing import TYPE_CHECKING

from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq.adapters import collection as collection
    from annvq.adapters import growing as growing
    from annvq.adapters import haystack as haystack
    from annvq.adapters import langchain as langchain
    from annvq.adapters import llama_index as llama_index
    from annvq.adapters import txtai as txtai

_MODULES = ("collection", "growing", "haystack", "langchain", "llama_index", "txtai")

__getattr__ = on_first_use(globals(), {name: name for name in _MODULES})


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
