"""Indexes in files: the kinds that there are, and how one is written and read."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from annvq import storage
from annvq.errors import FormatError
from annvq.indexes.ids import check_distinct
from annvq.quantizers.coder import Coder
from annvq.quantizers.files import from_stored
from annvq.types import Norm, Self

if TYPE_CHECKING:
    from annvq.indexes.contract import Index

FORMAT, VERSIONS = "annvq.index", (1, 2, 3, 4, 5, 6, 7)

_KINDS: dict[str, type[Any]] = {}  # of Index


def registered() -> "dict[str, type[Index]]":
    """Index classes by the name that files carry. The contract tests cover each."""
    return dict(_KINDS)


class Saved(ABC):
    """What is written to one file."""

    @abstractmethod
    def _file(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Header and tensors of the file."""

    def __repr__(self) -> str:
        index: Any = self
        return f"{type(self).__name__}({len(index):,} vectors, dim={index.dim}, metric={index.metric!r})"

    def save(self, target: storage.Target) -> None:
        """Write the index to one file, atomically, or into a file object opened in binary mode.

        Raises:
            OSError, ValueError, TypeError: it cannot be written there, see :func:`annvq.storage.write`.
        """
        storage.write(target, FORMAT, VERSIONS[-1], *self._file())

    def to_bytes(self) -> bytes:
        """What :meth:`save` writes; :func:`load_index` takes it."""
        return storage.saved_bytes(self.save)


class Registered(Saved):
    """An index as files know it: by its kind, with what it stores and its quantizer.

    A subclass with a ``kind`` of its own is registered by being defined.
    """

    kind: ClassVar[str] = ""
    mappable: ClassVar[frozenset[str]] = frozenset()
    """Tensors of a file that may stay on disk, as memory maps."""

    coder: Coder
    metric: str
    norm: Norm

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension of the vectors."""

    @property
    @abstractmethod
    def dims(self) -> int:
        """Their first dimensions, which codes see."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:
            return
        if cls.kind in _KINDS:
            raise ValueError(f"an index of kind {cls.kind!r} is registered already: {_KINDS[cls.kind].__name__}")
        _KINDS[cls.kind] = cls

    @abstractmethod
    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What this kind of index stores beside its quantizer."""

    @classmethod
    @abstractmethod
    def _from_stored(
        cls, quantizer: Coder, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        """The inverse of :meth:`_to_stored`; ValueError, KeyError or TypeError where something does not fit.

        Takes the tensors that it uses out of ``tensors``: one that is left over is an error. With ``mapped``, codes and
        ids are memory maps, unread.
        """

    def _file(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        config, tensors = self._to_stored()
        q_config, q_tensors = self.coder.to_stored()
        header = {
            "kind": self.kind,
            "metric": self.metric,
            "norm": self.norm,
            "quantizer": q_config,
            **({"dim": self.dim} if self.dim != self.dims else {}),
            **config,
        }
        return header, {**tensors, **{f"quantizer.{k}": v for k, v in q_tensors.items()}}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and pickles between processes (joblib; files never are any), go by what :meth:`save` writes."""
        return built, (*self._file(), f"a copied {type(self).__name__}")

    @staticmethod
    def load(source: storage.Source, *, mmap: bool = False, verify: bool = False) -> "Index":
        """Read an index without keys, see :func:`~annvq.indexes.keyed.index.load_index`.

        Raises:
            FormatError: an index with keys, too.
        """
        stored, name = read_index(source, mmap=mmap, verify=verify), storage.name_of(source)
        if "keys" in stored.config:
            raise FormatError(f"{name} holds an index with keys: annvq.load_index opens it")
        return built(stored.config, stored.tensors, name, mapped=mmap, verify=verify)


def read_index(source: storage.Source, *, mmap: bool, verify: bool) -> storage.Stored:
    """What the file of an index holds, whose checksums are right; see :func:`~annvq.indexes.keyed.index.load_index`."""
    return storage.read(source, FORMAT, VERSIONS, mapped=_mappable if mmap else None, verify=verify)


def _mappable(config: Mapping[str, Any]) -> Collection[str]:
    """Tensors that may stay on disk in a file of this config."""
    kind = config.get("kind")
    return _KINDS[kind].mappable if isinstance(kind, str) and kind in _KINDS else ()


def built(
    config: dict[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
    name: str,
    *,
    mapped: bool = False,
    verify: bool = False,
) -> "Index":
    """The index of a file's header and tensors; FormatError, naming ``name``, where they do not fit together."""
    prefix = "quantizer."
    parts = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    try:
        cls = _KINDS[config["kind"]]
        quantizer = from_stored(config["quantizer"], parts, name)
        if verify and "ids" in own:
            check_distinct(own["ids"])
        index = cls._from_stored(quantizer, config, own, mapped=mapped)
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as e:
        raise FormatError(f"{name} holds an index that cannot be built: {e!r}") from None
    if own:
        raise FormatError(f"{name} holds an index that cannot be built: tensors {sorted(own)} are not part of it")
    return index
