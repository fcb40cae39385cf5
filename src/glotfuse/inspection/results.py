"""What an inspection found, as plain data: nothing here needs torch.

Shapes: L encoder layers in their order (the embedding output left out), T tokens, N rows, P points. Weights are
fractions that sum to one over L; rates and accuracies are fractions from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

Vector = tuple[float, ...]


@dataclass(frozen=True)
class LayerWeights:
    """One weight per layer."""

    shared: bool
    """Whether every token has these weights; otherwise they are means over tokens."""
    weights: Vector
    """(L,)."""
    spread: Vector
    """(L,), standard deviation over tokens; zeros where weights are shared."""
    num_tokens: int
    """Tokens averaged over, special tokens left out; 0 where weights are shared."""


@dataclass(frozen=True)
class TextWeights:
    """The layer weights of each token of one text."""

    text: str
    """What the encoder reads, before it is cut."""
    language: str | None
    """Its code, where known."""
    tokens: tuple[str, ...]
    """(T,), each token as it is written in the text; special tokens by their names."""
    token_ids: tuple[int, ...]
    """(T,)."""
    weights: tuple[Vector, ...]
    """(T,L)."""
    truncated: bool
    """Whether the text was cut."""


@dataclass(frozen=True)
class LanguageWeights:
    """Layer weights over the tokens of one language's rows."""

    language: str
    num_texts: int
    num_tokens: int
    """Special tokens left out."""
    mean: Vector
    """(L,)."""
    std: Vector
    """(L,), standard deviation over tokens."""


@dataclass(frozen=True)
class WeightHistory:
    """Mean layer weights while training went on."""

    steps: tuple[int, ...]
    """Optimizer steps."""
    weights: tuple[Vector, ...]
    """(steps,L)."""


@dataclass(frozen=True)
class Similarity:
    """How alike two languages' vectors of the same N sentences are."""

    to_pivot: float
    """Retrieval accuracy: rows whose nearest pivot row by cosine is their translation."""
    from_pivot: float
    """Retrieval of the pivot's row from the language's, the other direction."""
    cka: float
    """Linear CKA (Kornblith et al. 2019); near one by chance where rows are fewer than dimensions."""
    debiased_cka: float
    """Linear CKA with the unbiased estimator of HSIC; near zero by chance."""

    @property
    def retrieval(self) -> float:
        """Mean of both directions."""
        return (self.to_pivot + self.from_pivot) / 2


@dataclass(frozen=True)
class LanguageAlignment:
    """One language against the pivot, before, within and after the fusion."""

    language: str
    layers: tuple[Similarity, ...]
    """(L,), mean-pooled states of each encoder layer."""
    mixed: Similarity
    """Mean-pooled mixed states."""
    span: Similarity
    """Mean-pooled span, the boundary left out."""


@dataclass(frozen=True)
class Projection:
    """Vectors of all languages' rows on their first two principal components."""

    stage: str
    """What the vectors are: the last encoder layer, mixed states, or the span."""
    points: tuple[tuple[float, float], ...]
    """(P,2)."""
    languages: tuple[str, ...]
    """(P,)."""
    labels: tuple[str | None, ...]
    """(P,)."""
    explained: tuple[float, float]
    """Share of the variance on each of the two."""


@dataclass(frozen=True)
class Alignment:
    """Alignment of translations."""

    pivot: str
    """The training language."""
    num_rows: int
    """N; retrieval is right by chance in 1/N."""
    languages: tuple[LanguageAlignment, ...]
    projections: tuple[Projection, ...]


@dataclass(frozen=True)
class LanguageTokenisation:
    """How the encoder's tokenizer cuts one language. Counts are of texts alone, without template and special tokens."""

    language: str
    num_texts: int
    num_characters: int
    """Unicode code points."""
    num_tokens: int
    tokens_per_character: float
    relative_to_pivot: float | None
    """Tokens relative to those of the same sentences in the pivot language; None where rows are not parallel."""
    unknown_rate: float
    """Unknown tokens among all tokens."""
    truncation_rate: float
    """Texts that are cut to the length limit, template and special tokens included."""


@dataclass(frozen=True)
class Inspection:
    """Everything."""

    run: str
    encoder: str
    mixer: str
    num_layers: int
    split: str | None
    """Split of the rows; None without a task."""
    layer_weights: LayerWeights | None
    """None where weights differ between tokens and nothing was read."""
    texts: tuple[TextWeights, ...]
    languages: tuple[LanguageWeights, ...]
    history: WeightHistory | None
    alignment: Alignment | None
    tokenisation: tuple[LanguageTokenisation, ...]
    notes: tuple[str, ...]
    """What is missing or must be known, in words."""
