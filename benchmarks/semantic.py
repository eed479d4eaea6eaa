"""What a similar question costs: its scope, the vector of its text, and a search among many; beside the exact key.

    python -m benchmarks.semantic [questions]

CPU is this process's own, all threads. The vector is made in a thread of its own; the rest is the event loop's.
"""

import random
import resource
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Sequence

from src.domain.catalog.model import CachePolicy
from src.domain.completion.cache_entry import cache_key
from src.domain.completion.similar import question_of
from src.integrations.semantic.index import MemoryIndex
from src.integrations.semantic.minilm import is_installed, load
from tests.unit.support import make_call, user_says

QUESTIONS = 10_000
DIMENSIONS = 384
ROUNDS = 5
LENGTHS = (8, 30, 120, 240)
POLICY = CachePolicy(ttl_s=60, similarity=0.97)


def cpu_ms(work: Callable[[], object], times: int) -> float:
    """Of one time, the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - began_s) * 1e3 / times)
    return statistics.median(rounds)


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tell(what: str, cost_ms: float) -> None:
    print(f"{what:<48} {cost_ms:9.3f} ms")


def vector() -> Sequence[float]:
    """Of length 1, in any direction."""
    values = [random.gauss(0, 1) for _ in range(DIMENSIONS)]
    length = sum(value * value for value in values) ** 0.5
    return array("f", (value / length for value in values))


def measure_keys() -> None:
    call = make_call(chat=user_says("x" * 1000, "word " * 30))
    tell("exact key of a prompt of 1 kB", cpu_ms(lambda: cache_key(call, POLICY), 2000))
    tell("scope of the same", cpu_ms(lambda: question_of(call, POLICY), 2000))


def measure_vectors() -> None:
    before_mib, began_s = memory_mib(), time.perf_counter()
    embed = load()
    embed("hello")
    print(f"model loaded in {time.perf_counter() - began_s:.2f} s, {memory_mib() - before_mib:.0f} MiB")
    for words in LENGTHS:
        text = "word " * words
        tell(f"vector of {words} words", cpu_ms(lambda text=text: embed(text), 20))  # type: ignore[misc]


def measure_searches(questions: int) -> None:
    index = MemoryIndex(max_entries=questions, max_bytes=questions * 8_000)
    for scope, count in (("one", 1), ("hundred", 100), ("all the others", questions - 101)):
        for number in range(count):
            index.put(scope, f"{scope} {number}", vector(), 3600)
        asked = vector()
        tell(f"search among {count}", cpu_ms(lambda: index.nearest(scope, asked, 0.97), 200))  # noqa: B023
    tell("one more, in the place of the oldest", cpu_ms(lambda: index.put("new", str(random.random()), asked, 60), 200))
    print(f"the index takes {index.size_bytes / 2**20:.0f} MiB")


def main() -> None:
    """Print a line for each."""
    if not is_installed():
        sys.exit("The extra `semantic` is not installed.")
    measure_keys()
    measure_vectors()
    measure_searches(int(sys.argv[1]) if len(sys.argv) > 1 else QUESTIONS)


if __name__ == "__main__":
    main()
