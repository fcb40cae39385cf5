"""The gate's state when a shutdown begins."""

from __future__ import annotations

import asyncio

from glotfuse.serving.http.gate import ServerState


def test_a_shutdown_shortens_the_time_of_bodies_and_spares_those_whose_time_is_up_in_that_moment() -> None:
    async def work() -> None:
        state, loop, seen = ServerState(), asyncio.get_running_loop(), list[str]()

        async def body(name: str, seconds: float) -> None:
            try:
                async with asyncio.timeout(seconds) as timeout:
                    state.bodies.add(timeout)
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append(name)

        waiting = [asyncio.create_task(body("slow", 60)), asyncio.create_task(body("late", 0.05))]
        await asyncio.sleep(0)
        late = min(state.bodies, key=lambda timeout: timeout.when() or 0)
        while not late.expired():  # between its time and the end of its task
            await asyncio.sleep(0)
        state.hurry(loop.time() + 0.05)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert sorted(seen) == ["late", "slow"]

    asyncio.run(work())
