"""Other libraries' indexes and quantizers, and annvq's for them."""

from typing import TYPE_CHECKING

from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq.interop import faiss as faiss

__getattr__ = on_first_use(globals(), {"faiss": "faiss"})
