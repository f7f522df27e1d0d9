"""What training asks of what it trains: quantizers have it, and training knows no more of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from annvq.codebooks import Codebooks
from annvq.types import F32, Array, Codes, Self

if TYPE_CHECKING:
    from torch import Tensor, nn

    from annvq.training.estimators import Estimator


class Model(Protocol):
    """Vectors to codes and back, with parameters that can be optimised."""

    dim: int
    sizes: tuple[int, ...]
    fitted: "Tensor"
    training: bool
    estimator: "Estimator"

    @property
    def config(self) -> dict[str, Any]: ...
    def encode_rows(self, x: F32) -> Codes: ...
    def decode_rows(self, codes: Codes) -> F32: ...
    def trained_parameters(self) -> "list[nn.Parameter]":
        """What a trainer optimises; the first one's device is where the model lies."""

    def mark_fitted(self) -> None: ...
    def restore(self, mean: F32, scale: float) -> None:
        """Bring what was learned on ``(x − mean) / scale`` to x's own offset and scale."""

    def learn_terms(self, x: Array, *, seed: int = 0) -> None:
        """Learn what follows from what was learned: norms, a decoder with tables."""

    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def to(self, device: Any) -> Self: ...
    def state_dict(self) -> "dict[str, Tensor]": ...
    def load_state_dict(self, state: "Mapping[str, Tensor]") -> Any: ...
    def __call__(self, x: "Tensor", codes: "Tensor | None" = None) -> Any:
        """Output vectors ``.xhat``, differentiable in training mode, and ``.codes``; those given, where there are
        any."""


class CodebookModel(Model, Protocol):
    """A model whose vectors are sums of entries of codebooks (or these side by side)."""

    M: int
    width: int
    offsets: tuple[int, ...]
    starts: tuple[int, ...]
    widths: tuple[int, ...]
    sums: ClassVar[bool]
    weight: "nn.Parameter"

    def set_codebooks(self, codebooks: Sequence[Array]) -> Self: ...
    def books(self) -> Codebooks: ...
    def codebooks_copy(self) -> F32: ...
    def in_own_coordinates(self, x: F32) -> "tuple[CodebookModel, F32]":
        """What holds the codebooks, and rows as it sees them: behind a transform, the inner model and its rows."""


class SumModel(CodebookModel, Protocol):
    """Codebooks over all dimensions, whose entries are added up."""

    def energies(self) -> Sequence[float]: ...
    def with_norm(self) -> Self:
        """A twin whose codes need their norm stored, unfitted."""


class GroupedModel(CodebookModel, Protocol):
    """Groups of codebooks over dimensions of their own."""

    def group_models(self) -> Sequence[Any]:
        """An unfitted model for each group."""


class MappedModel(CodebookModel, Protocol):
    """A model behind a learned map of vectors."""

    transform: Any
    quantizer: Any

    def rotated(self) -> "MappedModel":
        """The same inner model behind a rotation, the identity at first."""


class NetworkModel(Model, Protocol):
    """A quantizer with a network behind sums of entries."""

    def begin(self) -> None:
        """Forget the network, and keep the entries."""

    def decoded(self, codes: "Tensor") -> "Tensor":
        """Vectors (n, d) of int64 codes (n, M), less where they lie; differentiable."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters for :class:`torch.optim.AdamW`, with their own ``factor`` on the learning rate."""

    def improved(self, x: F32, codes: Codes) -> Codes:
        """Codes of rows, at least as near as those given."""

    def plain_codes(self, x: F32) -> Codes:
        """Codes of rows without the network."""

    def refit_view(self, x: F32, codes: Codes) -> None:
        """Take the entries whose sums come nearest to rows with these codes."""
