"""The llama.cpp side of the benchmark: run by path, in a Python that has llama_cpp and need not have npc_runtime.

    python bench_llama.py MODEL.gguf LOGITS.npy

Prints `ready` when loaded, then one line of JSON: CPU milliseconds (user + system) as medians.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROMPT, BATCH, CHECKED = 64, 8, 32


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(level: int, text: bytes, data: object) -> None:
    """Keeps llama.cpp's log off the screen."""


class Llama:
    """A model in llama.cpp through its C interface, one thread."""

    def __init__(self, path: str) -> None:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max = 8192, 512, 512, BATCH
        context.n_threads = context.n_threads_batch = 1
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))

    def forget(self) -> None:
        """Empties every sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def batch(self, tokens: Sequence[int], sequences: Sequence[int], positions: Sequence[int], all_logits: bool) -> Any:
        """A batch made ready, logits asked for all rows or the last."""
        count = len(tokens)
        batch = llama_cpp.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i], batch.pos[i] = int(tokens[i]), positions[i]
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequences[i]
            batch.logits[i] = all_logits or i == count - 1
        return batch

    def decode(self, batch: Any, row: int) -> NDArray[np.float32]:
        """Computes a batch; the logits of one of its rows, a view."""
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, row), (self.vocab_size,))


def cpu_ms(llama: Llama, batches: Sequence[Any], row: int, fresh: bool = False) -> list[float]:
    """CPU time of each batch, `fresh`: each from an empty memory."""
    taken = []
    for batch in batches:
        if fresh:
            llama.forget()
        begin = time.process_time()
        llama.decode(batch, row)
        taken.append((time.process_time() - begin) * 1e3)
    return taken


def checked_logits(llama: Llama) -> NDArray[np.float32]:
    """Logits (CHECKED, V) of the tokens both engines are compared on."""
    tokens = np.random.default_rng(1).integers(0, llama.vocab_size, CHECKED)
    llama.forget()
    return np.stack([llama.decode(llama.batch([t], [0], [i], True), 0).copy() for i, t in enumerate(tokens)])


def measure(llama: Llama) -> dict[str, float]:
    """Medians by name, as bench.py knows them."""
    rng = np.random.default_rng(2)

    def tokens(count: int) -> list[int]:
        return [int(token) for token in rng.integers(0, llama.vocab_size, count)]

    def prompt(count: int) -> Any:
        return llama.batch(tokens(count), [0] * count, range(count), False)

    found = {}
    llama.forget()
    steps = cpu_ms(llama, [llama.batch(tokens(1), [0], [i], True) for i in range(72)], 0)
    found["decode"] = statistics.median(steps[8:])
    for count, times in ((128, 4), (512, 3)):
        taken = cpu_ms(llama, [prompt(count) for _ in range(times)], count - 1, fresh=True)
        found[f"prefill_{count}"] = statistics.median(taken[1:])
    llama.forget()
    rows = [llama.batch(tokens(BATCH), range(BATCH), [i] * BATCH, True) for i in range(20)]
    found["batch_8"] = statistics.median(cpu_ms(llama, rows, BATCH - 1)[4:])
    found["first_token"] = statistics.median(cpu_ms(llama, [prompt(PROMPT) for _ in range(4)], PROMPT - 1, fresh=True))
    return found


def main() -> None:
    """Loads, tells, measures, prints."""
    llama = Llama(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()  # memory is looked at before anything runs
    np.save(sys.argv[2], checked_logits(llama))
    print(json.dumps(measure(llama)), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
