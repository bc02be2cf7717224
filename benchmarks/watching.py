"""What the processes that this one starts take, read from the system while they run."""

import threading

import psutil

INTERVAL_S = 0.3


class Watch:
    """Looks at all processes that this one starts, again and again; a context manager."""

    def __enter__(self) -> "Watch":
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._repeat)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _repeat(self) -> None:
        this = psutil.Process()
        while not self._is_over.wait(INTERVAL_S):
            self.sample(this.children(recursive=True))

    def sample(self, processes: list[psutil.Process]) -> None:
        """Take what the processes have now; some may have ended."""
        raise NotImplementedError


class CpuTime(Watch):
    """The CPU time of all processes that this one starts meanwhile, in seconds.

    What an operating system sums up for a parent lacks processes that nobody waits for.
    """

    def __init__(self):
        self._seconds: dict[tuple[int, float], float] = {}

    @property
    def seconds(self) -> float:
        return sum(self._seconds.values())

    def sample(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            key = process.pid, process.create_time()
            self._seconds[key] = times.user + times.system


class PeakMemory(Watch):
    """The most memory that the processes that this one starts have at a time, in bytes.

    Memory that processes share is counted once.
    """

    def __init__(self):
        self.peak = 0

    def sample(self, processes: list[psutil.Process]) -> None:
        total = 0
        for process in processes:
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak = max(self.peak, total)
