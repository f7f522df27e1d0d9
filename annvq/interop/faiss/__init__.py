"""annvq indexes as FAISS indexes and back; importing this loads no faiss."""

from annvq.interop.faiss.convert import from_faiss, to_faiss

__all__ = ["from_faiss", "to_faiss"]
