"""The codes that are measured: those of a grid that fit the budget, the dimension and the learn vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from annvq.benchmarks.metrics import k_recall
from annvq.benchmarks.statistics import Figure
from annvq.bits import NORM_BITS, split_bits
from annvq.choosing.forms import PLAIN, Form, Second, books, quantizer_keys
from annvq.quantizers.modules.registry import pays_norm, quantizer_class
from annvq.quantizers.product_additive import default_groups

NORM_FREE = "none: it follows from the code"
# (method of the harness, at most so many bits per codebook, norm), the most promising of each kind first; the norm is
# charged to the budget.
GRID: tuple[tuple[str, int, str], ...] = (
    ("product", 8, "auto"),
    ("rotated-product", 8, "auto"),
    ("residual", 8, "uint8"),
    ("additive", 8, NORM_FREE),
    ("additive", 8, "uint8"),
    ("residual", 8, NORM_FREE),
    ("product", 4, "auto"),
    ("residual", 6, "uint8"),
    ("additive", 6, "uint8"),
    ("residual", 8, "float32"),
    ("product", 10, "auto"),
    ("residual", 10, "uint8"),
    ("principal-product", 8, "auto"),
    ("principal-product", 4, "auto"),
    ("principal-additive", 8, NORM_FREE),
    ("principal-additive", 8, "uint8"),
    ("principal-additive", 4, NORM_FREE),
    ("product-additive", 8, NORM_FREE),
    ("product-additive", 8, "uint8"),
    ("conditional", 8, NORM_FREE),
    ("conditional", 8, "uint8"),
)
# Codebooks of more entries than the usual 256 are tried where each entry has this many learn vectors.
_VECTORS_PER_ENTRY, _USUAL_ENTRIES = 20, 256
# Principal axes are worth while from so many dimensions on, or so many codebooks. With many dimensions every code takes
# long, so those of 8 bits are tried and of 4, which are searched fastest.
_MANY_DIMENSIONS, _MANY_CODEBOOKS = 192, 9
# Additive codes of 4 bits are searched as fast as product codes of 4, from so many codebooks on with more recall.
_MANY_SMALL = 32
# Codebooks that are learned together, times their dimensions: more than this takes hours, or learns by heart. More
# entries than that take an hour: they are refitted at once, in a time that grows with the cube of their number.
_TOGETHER, _ENTRIES_TOGETHER = 1 << 14, 1 << 13


@dataclass(frozen=True)
class Candidate:
    """One code as measured.

    ``stage`` is ``"measured"`` on as much of the sample as time allows, ``"screened"`` on a part of it, or
    ``"planned"`` where time did not allow that: ``skipped`` says why. ``error`` says why a code could not be measured.
    Figures that do not exist are None. ``recall`` is k-recall@k, and ``figure`` that with its interval and what each
    query found. ``form`` is how codes are searched. ``predicted`` is recall among as many vectors as were asked about,
    by name, each with its interval, from ``predicted_from`` vectors, ``search_us_at_n`` about what a query takes there,
    and ``train_s_at_n`` about how long learning takes there.
    """

    kind: str
    nbits: tuple[int, ...]
    norm: str | None
    metric: str
    dim: int
    bits_per_vector: float | None = None
    recall: float | None = None
    recall_at_1: float | None = None
    mse: float | None = None
    train_s: float | None = None
    encode_us: float | None = None
    search_us: float | None = None
    wmops: float | None = None
    error: str | None = None
    stage: Literal["planned", "screened", "measured"] = "planned"
    norm_free: bool = False
    skipped: str | None = None
    figure: Figure | None = field(default=None, compare=False, repr=False)
    form: Form = PLAIN
    search_us_at_n: float | None = None
    predicted: Mapping[str, Figure] | None = field(default=None, compare=False, repr=False)
    predicted_from: int | None = None
    train_s_at_n: float | None = None
    k: int = 10

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: of figures the value and the interval."""
        held = asdict(replace(self, figure=None, predicted=None))
        del held["figure"]
        low, high = (None, None) if self.figure is None else (self.figure.low, self.figure.high)
        if self.predicted is not None:
            held["predicted"] = {
                name: {"value": f.value, "low": f.low, "high": f.high} for name, f in self.predicted.items()
            }
        return held | {"label": self.label, "recall_low": low, "recall_high": high}

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, as JSON holds it, whatever was measured of it."""
        of = ("kind", "nbits", "norm", "norm_free", "metric", "dim", "form", "k")
        return {name: value for name, value in asdict(replace(self, figure=None, predicted=None)).items() if name in of}

    @property
    def criterion(self) -> str:
        """The recall that codes are ranked by."""
        return k_recall(self.k)

    @property
    def expected(self) -> float | None:
        """Recall as predicted, or on the sample where it was not."""
        return self.predicted[self.criterion].value if self.predicted else self.recall

    @property
    def query_us(self) -> float | None:
        """What a query takes, among as many vectors as were asked about where that is known."""
        return self.search_us if self.search_us_at_n is None else self.search_us_at_n

    @property
    def recall_figure(self) -> Figure:
        """The recall with its interval; as if exact where that is not known."""
        return self.figure or Figure(self.recall or 0.0)

    @property
    def label(self) -> str:
        """Kind, codebooks and norm in one phrase."""
        norm = f" + {self.norm} norm" if self.norm else ", norm-free" if self.norm_free else ""
        decoded = ", decoded" if self.decoded else ""
        return f"{self.kind} {books(self.nbits)}{norm}{decoded}{self.form.label}"

    @property
    def decoded(self) -> bool:
        """Whether a shortlist is re-ranked by what codes stand for: it finds more then, for no bits."""
        gains = self.kind == "conditional" or (self.metric == "cosine" and self.kind in ("residual", "additive"))
        return gains and self.form.by is None

    def code_line(self) -> str:
        """The Python that makes this index."""
        norm = f', norm="{self.norm}"' if self.norm else ""
        scanned = _python(self.kind, self.dim, self.nbits, self.norm_free)
        if self.form.lists:
            lists = f", nlist=annvq.indexes.default_nlist(len(x)), residual={self.form.residual}"
            index = f'annvq.IVFIndex({scanned}{lists}, metric="{self.metric}"{norm})'
        else:
            index = f'annvq.FlatIndex({scanned}, metric="{self.metric}"{norm})'
        if self.decoded:
            index = f'annvq.RerankIndex({index}, "decoded")'
        elif isinstance(self.form.by, Second):
            second = _python(self.form.by.kind, self.dim, self.form.by.nbits, False)
            index = f'annvq.RerankIndex({index}, {second}, refines="{self.form.by.refines}")'
        elif self.form.by is not None:
            index = f'annvq.RerankIndex({index}, "{self.form.by}")'
        return f"{index}.fit(x)"  # of the index, which under cosine learns more than its quantizer alone does


def _python(kind: str, dim: int, nbits: tuple[int, ...], norm_free: bool) -> str:
    keys = quantizer_keys(nbits)
    runs = [f"({bits},) * {len(list(alike))}" for bits, alike in groupby(nbits)]
    each = keys["nbits"] if len(runs) == 1 else " + ".join(runs)
    free = ", norm_free=True" if norm_free else ""
    return f"annvq.{quantizer_class(kind).__name__}(dim={dim}, M={keys['M']}, nbits={each}{free})"


def candidates(bits: int, dim: int, metric: str, n_learn: int, k: int = 10) -> Sequence[Candidate]:
    """Codes of the grid that fit the budget, the dimension and the learn vectors, each once; ``k`` of their recalls."""
    found: dict[tuple[Any, ...], Candidate] = {}
    for kind, most, wanted in GRID:
        if dim >= _MANY_DIMENSIONS and most not in (4, 8):
            continue
        pays = pays_norm(kind, metric)
        free = pays and wanted == NORM_FREE
        norm = wanted if pays and not free else None
        left = bits - NORM_BITS[norm]
        if left < 1:
            continue
        nbits = split_bits(left, most)
        if kind == "principal-additive" and most == 4 and len(nbits) < _MANY_SMALL:
            continue
        entries = 2 ** max(nbits)
        enough = entries * (_VECTORS_PER_ENTRY if entries > _USUAL_ENTRIES else 1)
        if (kind.endswith("product") and dim < len(nbits)) or enough > n_learn or not _sensible(kind, dim, nbits):
            continue
        found.setdefault((kind, nbits, norm), Candidate(kind, nbits, norm, metric, dim, norm_free=free, k=k))
    if not found:
        raise ValueError(f"bits={bits}: no code of the grid fits dimension {dim} and {n_learn} learn vectors")
    return list(found.values())


def groups_of(kind: str, dim: int, M: int) -> int:
    """Into how many groups codes of this kind divide their dimensions and codebooks."""
    if kind.endswith("product"):
        return M
    return default_groups(dim, M) if kind in ("product-additive", "principal-additive") else 1


def entries_together(c: Candidate) -> int:
    """Entries of all codebooks that are learned together."""
    M = len(c.nbits)
    return M // groups_of(c.kind, c.dim, M) * 2 ** max(c.nbits)


def _sensible(kind: str, dim: int, nbits: Sequence[int]) -> bool:
    """Whether codes of this kind have a chance: codebooks of all dimensions have none where both are many, and groups
    of codebooks none that others would not have where there is one group."""
    M = len(nbits)
    if kind.startswith("principal") and dim < _MANY_DIMENSIONS and M < _MANY_CODEBOOKS:
        return False
    groups = groups_of(kind, dim, M)
    # One group are additive codes; over many dimensions principal axes make groups better, and are learned sooner.
    if kind in ("product-additive", "principal-additive") and groups == 1:
        return False
    # Nor does the network of conditional codes learn anything of so many that other vectors share.
    if kind in ("product-additive", "conditional") and dim >= _MANY_DIMENSIONS:
        return False
    together = M // groups
    return together * (dim // groups) <= _TOGETHER and together * 2 ** max(nbits) <= _ENTRIES_TOGETHER
