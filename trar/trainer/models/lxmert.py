"""LXMERT, and the adaptive transformer: LXMERT with adaptive spans, adaptive sparsity, LayerDrop.

b = batch, n = objects, f = numbers of an object, t = word pieces, d = width. True = real.
Source: Tan and Bansal, LXMERT, EMNLP 2019; Bhargava, Adaptive Transformers for Learning Multimodal
Representations, ACL SRW 2020. Post-norm BERT layers, erf GELU, normalisation with eps 1e-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from trar.trainer.models.adaptive_attention import AdaptiveAttention, Keys
from trar.trainer.models.adaptive_figures import attention_figures
from trar.trainer.models.boxes import box_shares
from trar.trainer.models.layer_drop import layers_used, shares_used
from trar.trainer.models.layers import Residual
from trar.trainer.models.lxmert_config import STACKS, LxmertConfig
from trar.trainer.models.masks import of_keys, real_cells, real_words, without_padded_steps
from trar.trainer.ops.adaptive_span import distance_between, distance_to_last
from trar.trainer.ops.dropout import Dropout
from trar.trainer.ops.layer_norm import LayerNorm

_DEVIATION = 0.02  # of the first weights
_BERT_NORM: Literal["fast"] = "fast"  # torch's form, which is BERT's


class Layer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: LxmertConfig, *, words: bool) -> None:
        super().__init__()
        width, rate = config.width, config.dropout
        self.attention = _attention(config, words_only=words)
        self.add_attention = Residual(width, rate, _BERT_NORM)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.ff_width), nn.GELU(), nn.Linear(config.ff_width, width)
        )
        self.add_feed_forward = Residual(width, rate, _BERT_NORM)

    def forward(self, x: Tensor, keys: Keys) -> Tensor:
        """x: (b, n, d), keys: those of x itself."""
        x = self.add_attention(x, self.attention(*self.attention.project(x), keys))
        out: Tensor = self.add_feed_forward(x, self.feed_forward(x))
        return out


class CrossLayer(nn.Module):
    """Words and objects look at each other, through one attention for both directions, and then
    each has a layer of its own. ``last``: nothing reads the objects after it, so it has no half
    for them."""

    def __init__(self, config: LxmertConfig, *, last: bool) -> None:
        super().__init__()
        self.cross = _attention(config, words_only=False)
        self.add_cross = Residual(config.width, config.dropout, _BERT_NORM)
        self.language = Layer(config, words=True)
        self.object = None if last else Layer(config, words=False)

    def forward(
        self, x: Tensor, y: Tensor, words: Keys, objects: Keys, *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Words x (b, t, d) and objects y (b, n, d); both look at what the other was before.
        ``last``: nothing reads the objects after it in this pass, so they stay as they are."""
        cross = self.cross
        if self.object is None or last:
            (query,), (key, value) = cross.project(x, slice(0, 1)), cross.project(y, slice(1, 3))
            x = self.add_cross(x, cross(query, key, value, objects))
            return self.language(x, words), y
        of_words, of_objects = cross.project(x), cross.project(y)
        unordered = words if words.distance is None or words.distance.dim() == 1 else _plain(words)
        x = self.add_cross(x, cross(of_words[0], *of_objects[1:], objects))
        y = self.add_cross(y, cross(of_objects[0], *of_words[1:], unordered))
        return self.language(x, words), self.object(y, objects)


class Lxmert(nn.Module):
    """The whole model. Its questions are word pieces that begin with [CLS], padded with 0."""

    takes_boxes = True
    takes_step_seed = True

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        # parity: padding_idx 0, so the first position and the type of every token never train
        self.words = nn.Embedding(config.vocabulary_size, width, padding_idx=0)
        self.positions = nn.Embedding(config.positions, width, padding_idx=0)
        self.types = nn.Embedding(2, width, padding_idx=0)
        self.word_norm = LayerNorm(width, _BERT_NORM)
        self.feature = nn.Linear(config.feature_dim, width)
        self.feature_norm = LayerNorm(width, _BERT_NORM)
        self.box = nn.Linear(4, width)
        self.box_norm = LayerNorm(width, _BERT_NORM)
        self.dropout = Dropout(config.dropout)
        layers = config.cross_layers
        self.language = nn.ModuleList(
            Layer(config, words=True) for _ in range(config.language_layers)
        )
        self.object = nn.ModuleList(Layer(config, words=False) for _ in range(config.object_layers))
        self.cross = nn.ModuleList(
            CrossLayer(config, last=number == layers - 1) for number in range(layers)
        )
        self.pool = nn.Linear(width, width)
        self.answer = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), LayerNorm(2 * width, _BERT_NORM)
        )
        self.classifier = nn.Linear(2 * width, config.answer_count)
        self.apply(_first_weights)

    def forward(
        self,
        image: Tensor,
        question: Tensor,
        cells: Tensor | None = None,
        boxes: Tensor | None = None,
        sizes: Tensor | None = None,
        *,
        step_seed: int | None = None,
    ) -> Tensor:
        """Answer logits (b, answers).

        image: (b, n, f), any float type. question: (b, t) int64, 0 = padding. cells: (b, n) bool,
        True = real object; None: all are. boxes: (b, n, 4) x1 y1 x2 y2 and sizes: (b, 2) height
        and width of the image, in pixels; None: the objects are the cells of a square grid.
        step_seed: decides which layers training leaves out; None: torch's random state does.
        """
        question = without_padded_steps(question)
        cells = None if cells is None else real_cells(image, cells)
        words, objects = self._keys(question, image.shape[1], cells)
        x, y = (
            self._read_words(question),
            self._read_objects(image, box_shares(image, boxes, sizes)),
        )
        layers = self.layers(step_seed)
        for layer in layers["language"]:
            x = layer(x, words)
        for layer in layers["object"]:
            y = layer(y, objects)
        for layer in layers["cross"]:
            x, y = layer(x, y, words, objects, last=layer is layers["cross"][-1])
        logits: Tensor = self.classifier(self.answer(self.pool(x[:, 0]).tanh()))
        if self.training and self.config.layer_drop:  # ranks exchange a gradient of every parameter
            unread = [parameter.sum() for parameter in self._unread(layers)]
            logits = logits + 0 * torch.stack(unread).sum()
        return logits

    def layers(self, step_seed: int | None = None) -> dict[str, list[nn.Module]]:
        """The layers of each of ``STACKS`` that a pass with this seed goes through."""
        generator = None if step_seed is None else torch.Generator().manual_seed(step_seed)
        return {
            stack: layers_used(
                getattr(self, stack),
                drop=self.config.layer_drop,
                kept=getattr(self.config, f"{stack}_kept"),
                training=self.training,
                generator=generator,
            )
            for stack in STACKS
        }

    def unread_parameters(self, step_seed: int) -> list[nn.Parameter]:
        """Those that no answer of a training pass with this seed depends on, so that they should
        not change: their gradient is zero, but an optimiser would go on by its momentum."""
        return self._unread(self.layers(step_seed)) if self.config.layer_drop else []

    def _unread(self, layers: dict[str, list[nn.Module]]) -> list[nn.Parameter]:
        used = {id(one) for stack in STACKS for one in layers[stack]}
        unread = [one for stack in STACKS for one in getattr(self, stack) if id(one) not in used]
        last_half = cast(CrossLayer, layers["cross"][-1]).object
        unread += [] if last_half is None else [last_half]
        return [parameter for one in unread for parameter in one.parameters()]

    def attentions(self) -> Iterator[tuple[str, AdaptiveAttention]]:
        """Every attention by its name: ``language.0.attention``, ``cross.4.cross``."""
        for name, module in self.named_modules():
            if isinstance(module, AdaptiveAttention):
                yield name, module

    def report(self, *inputs: Any) -> dict[str, dict[str, Tensor]]:
        """Span, alpha and sparsity of every attention, (h,), and ``layers``: see ``layer_use``."""
        figures = attention_figures(list(self.attentions()), lambda: self.forward(*inputs))
        used = self.layer_use([None])
        return figures | ({"layers": used} if used else {})

    def layer_use(self, step_seeds: Iterable[int | None]) -> dict[str, Tensor]:
        """The share of the passes with these seeds that each layer of a stack takes part in;
        nothing where no setting leaves layers out."""
        kept = [getattr(self.config, f"{stack}_kept") for stack in STACKS]
        if not self.config.layer_drop and kept == [None] * len(STACKS):
            return {}
        stacks = {stack: getattr(self, stack) for stack in STACKS}
        return shares_used(stacks, map(self.layers, step_seeds))

    def penalty(self) -> Tensor | None:
        """What is added to the mean loss of a question, None where no spans are learned."""
        spans = [one.span.mean() for _, one in self.attentions() if one.span is not None]
        return self.config.span_penalty * torch.stack(spans).sum() if spans else None

    def _keys(self, question: Tensor, objects: int, cells: Tensor | None) -> tuple[Keys, Keys]:
        config, tokens, device = self.config, question.shape[1], question.device
        of_words = of_objects = None
        if config.adaptive_span and config.distance == "absolute":
            of_words = distance_to_last(tokens, config.text_tokens, device)
            of_objects = distance_to_last(objects, config.objects, device)
        elif config.adaptive_span:
            of_words = distance_between(tokens, device)
        return (
            Keys(of_keys(real_words(question)), of_words, config.text_tokens),
            Keys(of_keys(cells), of_objects, config.objects),
        )

    def _read_words(self, question: Tensor) -> Tensor:
        places = torch.arange(question.shape[1], device=question.device)
        types = self.types(torch.zeros_like(question))
        x = self.words(question) + self.positions(places) + types
        return cast(Tensor, self.dropout(self.word_norm(x)))

    def _read_objects(self, image: Tensor, boxes: Tensor) -> Tensor:
        wide = self.feature.weight.dtype
        what = self.feature_norm(self.feature(image.to(wide)))
        where = self.box_norm(self.box(boxes.to(wide)))
        return cast(Tensor, self.dropout((what + where) / 2))


def _attention(config: LxmertConfig, *, words_only: bool) -> AdaptiveAttention:
    ramp = config.span_ramp if config.learns_spans(words_only=words_only) else None
    return AdaptiveAttention(
        config.width, config.heads, config.dropout, ramp=ramp, sparse=config.entmax
    )


def _plain(keys: Keys) -> Keys:
    """The same keys for queries that have no place among them."""
    return Keys(keys.keep, None, keys.length)


def _first_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, _DEVIATION)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
