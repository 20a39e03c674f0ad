"""LiteLLM's side of the bench: a custom authentication whose limits its proxy enforces.

The bench copies it next to LiteLLM's configuration; it runs in LiteLLM's environment, not in ours. Documented at
docs.litellm.ai under "Custom Auth": limits on the object that is returned are enforced as those of a stored key.
"""

import hashlib
import os

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth

HIGH = {"rpm_limit": 100_000_000, "tpm_limit": 1_000_000_000, "max_parallel_requests": 100_000}
SMALL = {"rpm_limit": int(os.environ.get("BENCH_SMALL_LIMIT", "3"))}
LIMITS = {"sk-bench": HIGH, "sk-small": HIGH | SMALL}


async def user_api_key_auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    if api_key not in LIMITS:
        raise ValueError("unknown key")
    return UserAPIKeyAuth(api_key=hashlib.sha256(api_key.encode()).hexdigest(), **LIMITS[api_key])
