"""What a key may call: https://platform.openai.com/docs/api-reference/models, with what stands behind each name."""

from __future__ import annotations

from typing import Any

from inference.gateway import refusing
from inference.gateway.door import Door
from inference.gateway.reply import Reply, Scope
from inference.gateway.snapshot import Route


class Catalogue:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def models(self, scope: Scope, name: str, answer: Reply) -> None:
        """All of them, or the one called `name`; raises Refusal 404."""
        snapshot, key = await self._door.open_now(scope)
        cards = [_card(route) for route in snapshot.routes.values() if key.allows(route.name)]
        if not name:
            return await answer.json(200, {"object": "list", "data": cards})
        for card in cards:
            if card["id"] == name:
                return await answer.json(200, card)
        raise refusing.unknown_model(name)


def _card(route: Route) -> dict[str, Any]:
    """`parent` is the base model of an adapter, `digest` says which files answer; a base model has neither."""
    champion = route.champion
    card: dict[str, Any] = {"id": route.name, "object": "model", "created": route.created, "owned_by": "paramstack"}
    if champion:
        adapter = bool(champion.adapter_digest)
        card |= {
            "root": champion.served,
            "parent": champion.base if adapter else None,
            "digest": champion.adapter_digest or champion.base_digest or None,
            "max_model_len": champion.context_tokens or None,
        }
    return card
