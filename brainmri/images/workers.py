"""Run what decodes image files, untrusted input, in parallel, within limits of time and memory.

Small images are decoded in threads. No call of a library can stop a decoder, so a large image,
which may take long and much memory within `limits`, is decoded in a process of its own.
"""

import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import psutil

from brainmri.common.processes import exit_with, processes_to_watch
from brainmri.common.resources import free_memory
from brainmri.images.decoding import DecodedImage, decode
from brainmri.images.limits import OUT_OF_MEMORY, ImageError, LargeImage, small_images_only

CHUNK_SIZE = 8  # files that a thread decodes in a row
CHUNKS_AHEAD = 4  # for each thread, running or waiting
MAX_CPU_S = 60  # of a large file
MAX_MEMORY = 4 * 2**30  # of a process that decodes large files, bytes
ROOT = Path(__file__).parents[2]  # of the project, from which the process imports
SERVE = "import sys; from brainmri.images.workers import serve; serve(int(sys.argv[1]))"

Result = TypeVar("Result")


def decode_all(
    paths: Iterable[Path], size: int, crop: bool, threads: int
) -> Iterator[tuple[Path, DecodedImage | ImageError]]:
    """Decode image files in parallel, and yield them in order; see `run_on_files`.

    Parameters
    ----------
    paths : iterable of Path
        Read as they are needed.
    size, crop : see `brainmri.images.decoding.decode`
    threads : int
        Number of threads.

    Yields
    ------
    path, DecodedImage or ImageError
    """
    decoded = run_on_files(decode, ((path, size, crop) for path in paths), threads)
    for (path, _, _), image in decoded:
        yield path, image


def run_on_files(
    function: Callable[..., Result], calls: Iterable[tuple], threads: int
) -> Iterator[tuple[tuple, Result | ImageError]]:
    """Call a function that decodes an image file for many, in parallel, and yield in order.

    Only a few chunks of files for each thread are decoded ahead.

    Parameters
    ----------
    function : callable
        Of a module, so that another process finds it. Raises ImageError.
    calls : iterable of tuple
        Arguments of each call, read as they are needed.
    threads : int
        Number of threads.

    Yields
    ------
    arguments, result or ImageError
    """
    calls = iter(calls)
    chunks = iter(lambda: list(islice(calls, CHUNK_SIZE)), [])
    with ThreadPoolExecutor(threads) as pool, _Workers(threads) as workers:

        def run_chunk(chunk: list[tuple]) -> list[tuple[tuple, Result | ImageError]]:
            return [
                (arguments, _result_or_error(workers, function, arguments))
                for arguments in chunk
                if not workers.closed
            ]

        futures = (pool.submit(run_chunk, chunk) for chunk in chunks)
        pending = deque(islice(futures, CHUNKS_AHEAD * threads))
        try:
            while pending:
                results = pending.popleft().result()
                pending.extend(islice(futures, 1))
                yield from results
        finally:  # Ctrl-C waits for the small images that are being decoded, and for no others
            for future in pending:
                future.cancel()


def _result_or_error(
    workers: "_Workers", function: Callable[..., Result], arguments: tuple
) -> Result | ImageError:
    try:
        with small_images_only():
            return function(*arguments)
    except LargeImage:
        return workers.run(function, arguments)
    except ImageError as error:
        return error


class _Workers:
    """Processes that decode large images, as many at once as there is memory for.

    A context manager, which kills them at its end.
    """

    def __init__(self, threads: int):
        self.closed = False
        self._slots = threading.Semaphore(max(1, min(threads, free_memory() // MAX_MEMORY)))
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []

    def run(self, function: Callable[..., Result], arguments: tuple) -> Result | ImageError:
        """Call a function in one of the processes; return its result, or why it has none."""
        with self._slots:
            with self._lock:
                if self.closed:
                    return ImageError("decoding was interrupted")
                if not self._idle:
                    self._all.append(_Worker())
                    self._idle.append(self._all[-1])
                worker = self._idle.pop()
            try:
                result = worker.run(function, arguments)
            except (EOFError, OSError):  # the process has ended
                return ImageError(why_ended(worker.stop()))
            self._idle.append(worker)
            return result

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            self.closed = True
            for worker in self._all:
                worker.stop()


class _Worker:
    """A process that calls functions, one after the other.

    It has no part in the terminal's Ctrl-C, which would have it print a traceback.
    """

    def __init__(self):
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._connection, other = multiprocessing.Pipe()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                pass_fds=[other.fileno()],
                process_group=0,
            )
        self._connection.send((processes_to_watch(), MAX_CPU_S, MAX_MEMORY))

    def run(self, function: Callable[..., Result], arguments: tuple) -> Result | ImageError:
        """Return what the function returns, or the ImageError that it raises.

        Raises
        ------
        EOFError, OSError
            If the process ends before.
        """
        self._connection.send((function, arguments))
        return self._connection.recv()

    def stop(self) -> int:
        """Kill the process, if it runs; return its status, as of subprocess.Popen."""
        self._process.kill()
        return self._process.wait()


def why_ended(status: int) -> str:
    """Say why a process ended while it decoded a file, by its status."""
    if status == -signal.SIGXCPU:
        return f"decoding takes more than {MAX_CPU_S} s; save it smaller, or as plain PNG"
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"its decoder crashed ({name})"


def serve(descriptor: int) -> None:
    """Call the functions that arrive at a connection, and return their results, until it ends."""
    connection = Connection(descriptor)
    watched, max_cpu_s, max_memory = connection.recv()
    threading.Thread(target=exit_with, args=(watched,), daemon=True).start()
    _lower_limit(resource.RLIMIT_AS, psutil.Process().memory_info().vms + max_memory)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        _lower_limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + max_cpu_s)
        try:
            result = function(*arguments)
        except ImageError as error:
            result = error
        except MemoryError:
            result = ImageError(OUT_OF_MEMORY)
        connection.send(result)


def _lower_limit(which: int, limit: int) -> None:
    """Set a limit of this process, if none that is lower holds already."""
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
