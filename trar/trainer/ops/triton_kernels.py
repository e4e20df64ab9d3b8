"""The Triton kernels of routed attention; ``routed_triton`` launches them.

One program works on one head. Pointers are to q, k, v (b, h, n, c) of common strides, to tensors
whose heads lie side by side (``out``, ``grad_*``), to ``route`` (b, l), ``level`` (n, n) and
``cells`` (b, n) as bytes, and to what is kept of each row and window, (b h, l, n) float32: the
largest score, the sum of exponentials (0 marks an empty window), and delta = sum_j P D G.
Levels l = windows from the smallest to the largest. DROPOUT: 0 none, 1 shared, 2 for each order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: N803  -- constants of the compiler in capitals, as Triton's own code has them

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["seed"])
def forward(
    q, k, v, out, route, level, cells, tops, totals, batch_step, head_step, row_step,
    seed, rate, scale, HEADS: tl.constexpr, SIZE: tl.constexpr, CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr, PADDED: tl.constexpr, UNIFORM: tl.constexpr, DROPOUT: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr, PRECISION: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr,
):  # fmt: skip
    """Some queries against all keys (n <= KEY_BLOCK)."""
    program = tl.program_id(0)
    batch = program // HEADS
    rows = tl.program_id(1) * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
    columns = tl.arange(0, KEY_BLOCK)
    source = batch.to(tl.int64) * batch_step + (program % HEADS) * head_step
    query = _load(q + source, rows, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    key = _load(k + source, columns, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    ring = _ring(level, cells, batch, rows, columns, SIZE, LEVELS, PADDED)
    mixed = tl.zeros((QUERY_BLOCK, KEY_BLOCK), tl.float32)
    for order in tl.static_range(LEVELS):
        top = tl.max(tl.where(ring <= order, scores, float("-inf")), axis=1)
        top = tl.where(top == float("-inf"), 0.0, top)
        total = tl.sum(_terms(scores, ring, order, top), axis=1)
        kept_at = (program * LEVELS + order) * SIZE + rows
        tl.store(tops + kept_at, top, mask=rows < SIZE)
        tl.store(totals + kept_at, total, mask=rows < SIZE)
        share = _window(scores, ring, order, top, total, columns, SIZE, UNIFORM)
        share *= tl.load(route + batch * LEVELS + order)
        if DROPOUT == 2:
            keep = _keep(seed, rate, program, rows, columns, order, SIZE)
            share = tl.where(keep, share, 0.0)
        mixed += share
    if DROPOUT == 1:
        mixed = tl.where(_keep(seed, rate, program, rows, columns, 0, SIZE), mixed, 0.0)
    mixed *= 1 / (1 - rate)
    value = _load(v + source, columns, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    result = tl.dot(mixed.to(value.dtype), value, input_precision=PRECISION)
    _store_merged(out, result, program, rows, HEADS, SIZE, CHANNELS, CHANNEL_BLOCK)


@triton.jit(do_not_specialize=["seed"])
def backward_queries(
    q, k, v, grad_out, grad_q, route, level, cells, tops, totals, deltas,
    batch_step, head_step, row_step,
    seed, rate, scale, HEADS: tl.constexpr, SIZE: tl.constexpr, CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr, PADDED: tl.constexpr, UNIFORM: tl.constexpr, DROPOUT: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr, PRECISION: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr,
):  # fmt: skip
    """dQ and delta of some queries, against all keys (n <= KEY_BLOCK)."""
    program = tl.program_id(0)
    batch = program // HEADS
    rows = tl.program_id(1) * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
    columns = tl.arange(0, KEY_BLOCK)
    source = batch.to(tl.int64) * batch_step + (program % HEADS) * head_step
    query = _load(q + source, rows, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    key = _load(k + source, columns, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    value = _load(v + source, columns, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    grad = _load_merged(grad_out, program, rows, HEADS, SIZE, CHANNELS, CHANNEL_BLOCK)
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    ring = _ring(level, cells, batch, rows, columns, SIZE, LEVELS, PADDED)
    grad_map = tl.dot(grad, tl.trans(value), input_precision=PRECISION) * (1 / (1 - rate))
    if DROPOUT == 1:
        grad_map = tl.where(_keep(seed, rate, program, rows, columns, 0, SIZE), grad_map, 0.0)
    grad_scores = tl.zeros((QUERY_BLOCK, KEY_BLOCK), tl.float32)
    for order in tl.static_range(LEVELS):
        kept_at = (program * LEVELS + order) * SIZE + rows
        top = tl.load(tops + kept_at, mask=rows < SIZE, other=0.0)
        total = tl.load(totals + kept_at, mask=rows < SIZE, other=0.0)
        share = _window(scores, ring, order, top, total, columns, SIZE, UNIFORM)
        dropped = grad_map
        if DROPOUT == 2:
            keep = _keep(seed, rate, program, rows, columns, order, SIZE)
            dropped = tl.where(keep, grad_map, 0.0)
        delta = tl.sum(share * dropped, axis=1)
        tl.store(deltas + kept_at, delta, mask=rows < SIZE)
        # what an empty window attends to hangs on no score
        weight = tl.where(total == 0, 0.0, tl.load(route + batch * LEVELS + order))
        grad_scores += weight[:, None] * share * (dropped - delta[:, None])
    result = tl.dot(grad_scores.to(key.dtype), key, input_precision=PRECISION) * scale
    _store_merged(grad_q, result, program, rows, HEADS, SIZE, CHANNELS, CHANNEL_BLOCK)


@triton.jit(do_not_specialize=["seed"])
def backward_keys(
    q, k, v, grad_out, grad_k, grad_v, route, level, cells, tops, totals, deltas,
    batch_step, head_step, row_step,
    seed, rate, scale, HEADS: tl.constexpr, SIZE: tl.constexpr, CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr, PADDED: tl.constexpr, UNIFORM: tl.constexpr, DROPOUT: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr, PRECISION: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr,
):  # fmt: skip
    """dK and dV of some keys, block by block of the queries; after ``backward_queries``."""
    program = tl.program_id(0)
    batch = program // HEADS
    columns = tl.program_id(1) * KEY_BLOCK + tl.arange(0, KEY_BLOCK)
    source = batch.to(tl.int64) * batch_step + (program % HEADS) * head_step
    key = _load(k + source, columns, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    value = _load(v + source, columns, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
    sum_k = tl.zeros((KEY_BLOCK, CHANNEL_BLOCK), tl.float32)
    sum_v = tl.zeros((KEY_BLOCK, CHANNEL_BLOCK), tl.float32)
    for start in range(0, SIZE, QUERY_BLOCK):
        rows = start + tl.arange(0, QUERY_BLOCK)
        query = _load(q + source, rows, row_step, SIZE, CHANNELS, CHANNEL_BLOCK)
        grad = _load_merged(grad_out, program, rows, HEADS, SIZE, CHANNELS, CHANNEL_BLOCK)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        ring = _ring(level, cells, batch, rows, columns, SIZE, LEVELS, PADDED)
        grad_map = tl.dot(grad, tl.trans(value), input_precision=PRECISION) * (1 / (1 - rate))
        if DROPOUT == 1:
            shared = _keep(seed, rate, program, rows, columns, 0, SIZE)
            grad_map = tl.where(shared, grad_map, 0.0)
        mixed = tl.zeros((QUERY_BLOCK, KEY_BLOCK), tl.float32)
        grad_scores = tl.zeros((QUERY_BLOCK, KEY_BLOCK), tl.float32)
        for order in tl.static_range(LEVELS):
            kept_at = (program * LEVELS + order) * SIZE + rows
            top = tl.load(tops + kept_at, mask=rows < SIZE, other=0.0)
            total = tl.load(totals + kept_at, mask=rows < SIZE, other=0.0)
            delta = tl.load(deltas + kept_at, mask=rows < SIZE, other=0.0)
            share = _window(scores, ring, order, top, total, columns, SIZE, UNIFORM)
            share *= tl.load(route + batch * LEVELS + order)
            kept = share
            dropped = grad_map
            if DROPOUT == 2:
                keep = _keep(seed, rate, program, rows, columns, order, SIZE)
                kept = tl.where(keep, share, 0.0)
                dropped = tl.where(keep, grad_map, 0.0)
            mixed += kept
            change = share * (dropped - delta[:, None])
            grad_scores += tl.where((total == 0)[:, None], 0.0, change)
        if DROPOUT == 1:
            mixed = tl.where(shared, mixed, 0.0)
        mixed *= 1 / (1 - rate)
        # rows past the end have queries and gradients of 0, so they add nothing
        sum_v += tl.dot(tl.trans(mixed.to(grad.dtype)), grad, input_precision=PRECISION)
        sum_k += tl.dot(tl.trans(grad_scores.to(query.dtype)), query, input_precision=PRECISION)
    _store_merged(grad_k, sum_k * scale, program, columns, HEADS, SIZE, CHANNELS, CHANNEL_BLOCK)
    _store_merged(grad_v, sum_v, program, columns, HEADS, SIZE, CHANNELS, CHANNEL_BLOCK)


@triton.jit
def _load(base, rows, row_step, SIZE: tl.constexpr, CHANNELS: tl.constexpr,
          CHANNEL_BLOCK: tl.constexpr):  # fmt: skip
    """Rows of one head, (rows, CHANNEL_BLOCK), 0 past the end of either."""
    channel = tl.arange(0, CHANNEL_BLOCK)
    there = (rows[:, None] < SIZE) & (channel[None, :] < CHANNELS)
    return tl.load(base + rows[:, None] * row_step + channel[None, :], mask=there, other=0.0)


@triton.jit
def _load_merged(base, program, rows, HEADS: tl.constexpr, SIZE: tl.constexpr,
                 CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr):  # fmt: skip
    """The same of a tensor whose heads lie side by side."""
    start = (program // HEADS).to(tl.int64) * SIZE * HEADS + program % HEADS
    head = base + start * CHANNELS
    return _load(head, rows, HEADS * CHANNELS, SIZE, CHANNELS, CHANNEL_BLOCK)


@triton.jit
def _store_merged(base, values, program, rows, HEADS: tl.constexpr, SIZE: tl.constexpr,
                  CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr):  # fmt: skip
    """Write rows of one head (rows, CHANNEL_BLOCK) to a tensor whose heads lie side by side."""
    channel = tl.arange(0, CHANNEL_BLOCK)
    there = (rows[:, None] < SIZE) & (channel[None, :] < CHANNELS)
    start = (program // HEADS).to(tl.int64) * SIZE * HEADS + program % HEADS
    places = base + start * CHANNELS + rows[:, None] * HEADS * CHANNELS + channel[None, :]
    tl.store(places, values.to(base.dtype.element_ty), mask=there)


@triton.jit
def _ring(level, cells, batch, rows, columns, SIZE: tl.constexpr, LEVELS: tl.constexpr,
          PADDED: tl.constexpr):  # fmt: skip
    """The level of each pair's smallest window; LEVELS where the key is padding or past the end."""
    inside = (rows[:, None] < SIZE) & (columns[None, :] < SIZE)
    places = level + rows[:, None] * SIZE + columns[None, :]
    ring = tl.load(places, mask=inside, other=LEVELS).to(tl.int32)
    if PADDED:
        real = tl.load(cells + batch * SIZE + columns, mask=columns < SIZE, other=0)
        ring = tl.where(real[None, :] != 0, ring, LEVELS)
    return ring


@triton.jit
def _terms(scores, ring, order, top):
    """exp(S - top) inside a window, 0 outside."""
    return tl.exp(tl.where(ring <= order, scores - top[:, None], float("-inf")))


@triton.jit
def _window(scores, ring, order, top, total, columns, SIZE: tl.constexpr, UNIFORM: tl.constexpr):
    """P, the softmax over one window."""
    empty = total == 0
    share = _terms(scores, ring, order, top) / tl.where(empty, 1.0, total)[:, None]
    if UNIFORM:
        share = tl.where(empty[:, None] & (columns[None, :] < SIZE), 1.0 / SIZE, share)
    return share


@triton.jit
def _keep(seed, rate, program, rows, columns, order: tl.constexpr, SIZE: tl.constexpr):
    """The dropout mask of one order, True = keep: a function of seed, head, order and pair alone.

    Each draw makes four words, one for each of four orders; the compiler sees that it is the same
    draw and makes it once.
    """
    pair = rows[:, None] * SIZE + columns[None, :]
    zero = pair * 0
    first, second, third, fourth = tl.philox(seed, pair, zero + program, zero + order // 4, zero)
    word = first
    if order % 4 == 1:
        word = second
    if order % 4 == 2:
        word = third
    if order % 4 == 3:
        word = fourth
    return tl.uint_to_uniform_float(word) >= rate
