"""How well block order mixes, and what each order costs, on a generated index of VQA's size.

Batches are compared with the epoch they are of by two properties of an image: the part of the store
it stands in (the worst case: contents that follow the order of the files) and a topic drawn at
random (contents that do not). Prints a table and JSON.

    python benchmarks/orders.py --questions 443757 --images 82783
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from trar.trainer.orders import MIB, Order, OrderSettings, make_order
from trar.trainer.question_index import QuestionIndex
from trar.trainer.shuffle_quality import shuffle_quality

KINDS = 20


def generated_index(questions: int, images: int, image_bytes: int) -> QuestionIndex:
    """One split; every image has a question, and the rest fall on images at random."""
    random = np.random.default_rng(0)
    extra = random.integers(0, images, questions - images)
    words = 2 + random.poisson(4.2, questions)
    return QuestionIndex(
        splits=("train",),
        source=np.zeros(questions, np.uint8),
        image_splits=("train",),
        image_counts=(images,),
        image_split=np.zeros(questions, np.uint8),
        image_row=np.sort(np.concatenate([np.arange(images), extra])).astype(np.int32),
        token_length=words.astype(np.uint16),
        image_bytes=image_bytes,
    )


def measure(settings: OrderSettings, index: QuestionIndex, batch_size: int) -> dict[str, Any]:
    """Quality, cost and memory of one order."""
    order = make_order(settings, seed=0, batch_size=batch_size, questions=index)
    images = index.image_counts[0]
    topic = np.random.default_rng(1).integers(0, KINDS, images)
    place = np.arange(images) * KINDS // images
    by_place = shuffle_quality(order, index, place[index.image_row])
    by_topic = shuffle_quality(order, index, topic[index.image_row])
    seconds, held, peak = cost(order)
    rows = [order.rows(0, step) for step in range(order.steps)]
    padded = sum(int(index.token_length[one].max()) * len(one) for one in rows)
    return {
        "order": settings.order,
        "window_mib": settings.window_bytes // MIB if settings.order == "block" else None,
        "block_images": settings.block_images if settings.order == "block" else None,
        "length_pool": settings.length_pool,
        "distance_place": by_place.distance,
        "distance_topic": by_topic.distance,
        "images": by_place.images,
        "words_of_padded": float(index.token_length.sum()) / padded,
        "seconds": seconds,
        "held_bytes_a_question": held / len(index),
        "peak_bytes_a_question": peak / len(index),
    }


def cost(order: Order) -> tuple[float, int, int]:
    """Median processor seconds for an epoch; bytes that it then holds; the peak on the way."""
    seconds = []
    for epoch in range(1, 8):
        begin = time.process_time()
        order.rows(epoch, 0)
        seconds.append(time.process_time() - begin)
    fresh = copy.copy(order)  # holds no epoch yet
    tracemalloc.start()
    fresh.rows(1, 0)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return statistics.median(seconds), held, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=443_757)
    parser.add_argument("--images", type=int, default=82_783)
    parser.add_argument("--image-kib", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    index = generated_index(given.questions, given.images, given.image_kib * 1024)
    block = [
        OrderSettings("block", window * MIB, images)
        for window in (256, 512, 1024, 2048, 4096)
        for images in (16, 32, 64, 256)
    ]
    cases = [OrderSettings(), *block, OrderSettings(length_pool=100)]
    cases.append(OrderSettings("block", 1024 * MIB, length_pool=100))
    figures = [measure(case, index, given.batch_size) for case in cases]
    for row in figures:
        print("| " + " | ".join(_shown(value) for value in row.values()) + " |")
    print(json.dumps(figures))
    if given.json:
        given.json.write_text(json.dumps(figures))


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str("" if value is None else value)


if __name__ == "__main__":
    main()
