"""Our side of the benchmark, in a process of its own: `python -m npc_runtime.bench_onnx BUNDLE BITS LOGITS.npy`.

Prints `ready` when the backend is loaded, then one line of JSON: CPU milliseconds (user + system) as medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from npc_runtime.backends.onnx import OnnxBackend
    from npc_runtime.bundle import Bundle

PROMPT, BATCH, CHECKED = 64, 8, 32


def cpu_ms(times: int, run: Callable[[], object]) -> list[float]:
    """CPU time of each of some runs."""
    taken = []
    for _ in range(times):
        begin = time.process_time()
        run()
        taken.append((time.process_time() - begin) * 1e3)
    return taken


def checked_logits(backend: OnnxBackend) -> NDArray[np.float32]:
    """Logits (CHECKED, V) of the tokens both engines are compared on, token by token."""
    import numpy as np

    work = backend.borrow()
    work.load(0, backend.read(0).vector)
    rows = []
    for token in np.random.default_rng(1).integers(0, backend.vocab_size, CHECKED):
        work.tokens[0] = token
        work.step(1)
        rows.append(work.logits[0].copy())
    backend.give_back(work)
    return np.stack(rows)


def measure(backend: OnnxBackend) -> dict[str, float]:
    """Medians by name, as bench.py knows them."""
    import numpy as np

    from npc_runtime.sampling import Draw, Sampling

    rng = np.random.default_rng(2)
    prompts = {count: rng.integers(0, backend.vocab_size, count).tolist() for count in (PROMPT, 128, 512)}
    found = {"decode": statistics.median(cpu_ms(72, _stepper(backend, 1))[8:])}
    for count, times in ((128, 4), (512, 3)):
        found[f"prefill_{count}"] = statistics.median(cpu_ms(times, partial(backend.prefill, [0], prompts[count]))[1:])
    found["batch_8"] = statistics.median(cpu_ms(20, _stepper(backend, BATCH))[4:])

    def first() -> None:
        backend.prefill([0], prompts[PROMPT][:-1])
        batch = backend.open([0])
        batch.step([Draw(prompts[PROMPT][-1], Sampling(), 1, 1, 1)])
        batch.close()

    found["first_token"] = statistics.median(cpu_ms(4, first))
    return found


def _stepper(backend: OnnxBackend, rows: int) -> Callable[[], None]:
    import numpy as np

    work, rng = backend.borrow(), np.random.default_rng(3)
    for row in range(rows):
        work.load(row, backend.read(0).vector)

    def step() -> None:
        work.tokens[:rows] = rng.integers(0, backend.vocab_size, rows)
        work.step(rows)

    return step


def python_us(bundle: Bundle, reply: Sequence[int]) -> dict[str, float]:
    """Microseconds a token that Python adds to the model: drawing it, making it text, putting it on the wire."""
    import numpy as np

    from npc_runtime import wire
    from npc_runtime.constraint import Trie
    from npc_runtime.prompt import Head, ReplyReader, make_layout
    from npc_runtime.sampling import Sampling, pick_from_top
    from npc_runtime.turn import Speech

    rng = np.random.default_rng(4)
    layout = make_layout(bundle.layout, bundle.tokenizer)
    taken = {"sampling": 0.0, "text": 0.0, "wire": 0.0}
    for _ in range(20):
        reader = ReplyReader(layout, bundle.tokenizer, Trie([((1,), Head("calm"))]), 1 << 20)
        reader.push(1)
        speech = Speech((), reader, Sampling(), 1, 1, recent=tuple(reply[:64]))
        ids, logits = rng.permutation(bundle.config.vocab_size)[:64], -np.sort(-rng.normal(size=64) * 3)
        for token in reply:
            marks = [time.process_time()]
            pick_from_top(speech.draw(token), ids.tolist(), logits.tolist())
            marks.append(time.process_time())
            piece = reader.push(token)
            speech.drawn.append(token)
            marks.append(time.process_time())
            if piece is not None:
                wire.encode(wire.Event(1, "delta", {"text": piece.text}))
            marks.append(time.process_time())
            for name, begin, end in zip(taken, marks, marks[1:], strict=False):
                taken[name] += end - begin
    return {name: value * 1e6 / (20 * len(reply)) for name, value in taken.items()}


def main() -> None:
    """Loads, tells, measures, prints."""
    from npc_runtime.backends.onnx import OnnxBackend
    from npc_runtime.bundle import Bundle

    bundle = Bundle.load(sys.argv[1])
    backend = OnnxBackend(bundle, slots=500, bits=int(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()  # memory is looked at before anything runs
    import numpy as np

    np.save(sys.argv[3], checked_logits(backend))
    found = measure(backend)
    line = "Come in, sit down by the fire and tell me of the road, for it is long since anyone came from the sea."
    found |= {f"{name}_us": value for name, value in python_us(bundle, bundle.tokenizer.encode(line)).items()}
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
