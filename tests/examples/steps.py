"""What happens at school while an example runs."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx

from tests.browser.school import School

METRICS_TOKEN = "the metrics of a school are read by its operator"
LOOK_AGAIN_SECONDS = 0.05


async def fall_due(school: School, key: str) -> None:
    """Work of class 7b that was due yesterday."""
    due = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    await school.save("Assignment", key=key, classroomId="7b", title=f"Work {key}", conceptIds=["fractions"], dueAt=due)


async def a_newcomer(school: School, key: str) -> None:
    """A student who enters class 7b, where work is due already: a flag is raised."""
    await school.enroll(key, f"Newcomer {key}")


async def restart(school: School, **settings: str) -> None:
    """Stop the api as an operator does, and start it with other settings."""
    await school.stop_api()
    school.environment |= settings
    await school.start_api()


async def until_refused(school: School, token: str) -> None:
    """Wait until the api itself says that a token has ended."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{school.port}", trust_env=False) as client:
        headers = {"authorization": f"Bearer {token}"}
        while True:
            answer = await client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
            if answer.status_code == 401:
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def ended_streams(school: School) -> list[str]:
    """What the metrics tell of subscriptions to flags that have ended; the api needs METRICS_TOKEN."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{school.port}", trust_env=False) as client:
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"})
    assert answer.status_code == 200
    told = [line for line in answer.text.splitlines() if line.startswith("websocket_operations")]
    assert "websocket_operations_active 1.0" in told, told
    return [line for line in told if "riskFlagChanged" in line]
