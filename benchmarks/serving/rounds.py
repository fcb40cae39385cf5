"""The two measurements: more and more clients, and far more clients than there is room for."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from benchmarks.serving.figures import MARGIN, Figures, longest_wait, summarise
from benchmarks.serving.generator import Generator
from benchmarks.serving.server import Server, Watch
from benchmarks.serving.traffic import Workload

_LONGEST = 6
"""A load takes at most so many times the seconds that were asked for."""
_ANSWERS_EACH = 3
"""A load takes long enough that each client should get so many answers."""
MEMORY_MB, MEMORY_SHARE = 50, 0.05
"""What the peak of a second round may be above that of the first: so much, or this share of it."""


@dataclass(frozen=True)
class Check:
    """One promise about a server under load."""

    promise: str
    found: str
    kept: bool


@dataclass
class Bench:
    """A server, a generator and what to ask.

    Args:
        server: The server.
        generator: Locust.
        texts: What to ask about.
        seconds: How long a load takes, at least.
        pause: Seconds that a client waits after a refusal.
        say: Told each load's figures in a line.
    """

    server: Server
    generator: Generator
    texts: Sequence[str]
    seconds: float
    pause: float
    say: Callable[[str], None]

    def load(self, workload: Workload, clients: int, seconds: float) -> Figures:
        """One load; what the server counted meanwhile, its memory and its queue are in `server`."""
        server = self.server
        before, memory, watch = server.statuses(workload.route), server.resident_mb(), Watch(server)
        watch.start()
        try:
            found, share = self.generator.send(
                server.address, workload, workload.bodies(self.texts), clients, seconds, self.pause
            )
        finally:
            watch.finish()
        idle = server.is_idle()
        figures = summarise(workload.name, clients, seconds, found)
        own = Counter({status: count for status, count in figures.statuses.items() if status})
        about = {
            "rss_before_mb": memory,
            "rss_peak_mb": max(watch.peak_mb, server.resident_mb()),
            "rss_after_mb": server.resident_mb(),
            "most_waiting": watch.most["glotfuse_waiting"],
            "most_running": watch.most["glotfuse_running"],
            "idle_afterwards": idle,
            "counts_the_same": self._counted(workload.route, before, own) and found.counted_by_locust == found.sent,
            "generator_core_share": share,
        }
        figures = replace(figures, server=about)
        self.say(_line(figures))
        return figures

    def _counted(self, route: str, before: Counter[int], own: Counter[int]) -> bool:
        """Whether the server has counted what the generator has, now or soon."""
        for _ in range(20):
            if self.server.statuses(route) - before == own:
                return True
            time.sleep(0.1)
        return False

    def sweep(self, workloads: Sequence[Workload], clients: Sequence[int]) -> Iterator[Figures]:
        """Each workload with each number of clients; a load takes longer where answers do."""
        for workload in workloads:
            rate = 1 / self._alone(workload)
            for count in clients:
                figures = self.load(workload, count, self._enough(_ANSWERS_EACH * count / rate))
                # without an answer in time: as if the next load were as slow for each client
                rate = figures.rate if figures.measured else count / figures.p50
                yield figures

    def _alone(self, workload: Workload) -> float:
        """Seconds that a second request takes with nothing else under way."""
        for body in workload.bodies(self.texts[:2]):
            begun = time.monotonic()
            self.server.client.post(workload.route, content=body, headers={"Content-Type": "application/json"})
        return time.monotonic() - begun

    def _enough(self, needed: float) -> float:
        """Whole seconds for a load that needs so many."""
        return round(min(max(self.seconds, needed), _LONGEST * self.seconds))

    def overload(self, workloads: Sequence[Workload], clients: int, room: int, rounds: int) -> Iterator[Figures]:
        """Each workload with more clients than there is room for, and all of it again.

        A load takes long enough to answer twice what there is room for, if one request at a time were answered as
        fast as alone.
        """
        seconds = {workload.name: self._enough(2 * room * self._alone(workload)) for workload in workloads}
        for _ in range(rounds):
            for workload in workloads:
                yield self.load(workload, clients, seconds[workload.name])


def check_overload(rows: Sequence[Figures], room: int, queue_size: int, alive: bool, same_answer: bool) -> list[Check]:
    """What a server promises beyond its limits.

    Args:
        rows: All loads; those of the first round first.
        room: Most requests that it takes in at once.
        queue_size: Most that may wait.
        alive: Whether the same process takes requests afterwards.
        same_answer: Whether it still answers as before.
    """
    sent, answered, refused = (sum(getattr(row, name) for row in rows) for name in ("sent", "answered", "refused"))
    waits = [(row.longest, longest_wait(room, row.rate)) for row in rows]
    worst = max(waits, key=lambda pair: pair[0] / pair[1])
    each_round = len({row.workload for row in rows})
    peaks = [
        max(row.server["rss_peak_mb"] for row in rows[i : i + each_round]) for i in range(0, len(rows), each_round)
    ]
    bounded = len(peaks) == 1 or max(peaks[1:]) - peaks[0] <= max(MEMORY_MB, MEMORY_SHARE * peaks[0])
    return [
        Check("nothing is lost", f"{sent} sent = {answered} answered + {refused} refused", sent == answered + refused),
        Check("it was past saturation", f"{refused} refused", all(row.refused for row in rows)),
        Check(
            "only 200 and 429",
            f"{sorted({status for row in rows for status in row.statuses})}",
            all(set(row.statuses) <= {200, 429} for row in rows),
        ),
        Check(
            "each 429 says Retry-After",
            f"{sum(row.without_retry_after for row in rows)} do not",
            not any(row.without_retry_after for row in rows),
        ),
        Check(
            "server, Locust and clients count the same",
            f"in {sum(row.server['counts_the_same'] for row in rows)} of {len(rows)} loads",
            all(row.server["counts_the_same"] for row in rows),
        ),
        Check(
            f"accepted requests wait no longer than the queue ({MARGIN} x {room} requests at the rate)",
            f"{worst[0]:.1f} s, bound {worst[1]:.1f} s",
            all(longest <= bound < math.inf for longest, bound in waits),
        ),
        Check(
            f"at most {queue_size} wait",
            f"{max(row.server['most_waiting'] for row in rows)} seen",
            all(row.server["most_waiting"] <= queue_size for row in rows),
        ),
        Check(
            "memory is bounded: no higher peak when the loads come again",
            f"peaks {', '.join(f'{mb:.0f}' for mb in peaks)} MB"
            + ("; one round says little" if len(peaks) == 1 else ""),
            bounded,
        ),
        Check(
            "idle afterwards: nothing waits, runs or is streamed",
            f"in {sum(row.server['idle_afterwards'] for row in rows)} of {len(rows)} loads",
            all(row.server["idle_afterwards"] for row in rows),
        ),
        Check("the same process takes requests", str(alive), alive),
        Check("and gives the answer that it gave before", str(same_answer), same_answer),
    ]


def as_row(figures: Figures) -> dict[str, object]:
    """Plain values for JSON, which knows no nan."""
    unknown = {name: None for name, value in vars(figures).items() if isinstance(value, float) and math.isnan(value)}
    return {**asdict(figures), **unknown}


def _line(row: Figures) -> str:
    return (
        f"{row.workload}, {row.clients} clients, {row.seconds:.0f} s: {row.rate:.2f} answers/s, p50 {row.p50:.2f} s, "
        f"p99 {row.p99:.2f} s; {row.sent} sent, {row.answered} answered, {row.refused} refused, {row.lost} lost"
    )
