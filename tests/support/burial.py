"""Who was killed stays in its Kafka group until its session ends, 10 s: a test that needs no such wait ends it at once.

What does depend on a session's end is tested where nobody says so: tests/acceptance/test_zombies.py, test_workers.py.
"""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest


async def bury(servers: str, group: str) -> int:
    """All members of the group leave it; returns how many. They must be dead: one that lives would join again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    left = 0
    try:
        coordinator = await admin.find_coordinator(group)
        for response in await admin.describe_consumer_groups([group]):
            for _, _, _, _, _, members, *_ in response.groups:
                for member in members:
                    await admin._send_request(LeaveGroupRequest(group, member[0]), coordinator)
                    left += 1
    except KafkaError:  # it is only a saving
        return left
    finally:
        await admin.close()
    return left
