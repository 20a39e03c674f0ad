"""What serves: base models, adapters, engines, model names, rollouts, guardrail policies; by room."""

from inference.models.adapters import Adapter, BaseModel
from inference.models.calls import Feedback, GuardrailPolicy
from inference.models.engines import EngineReading, OwnTokens, Replica, Residence
from inference.models.routing import Alias, Rollout, RolloutEvent

__all__ = [
    "Adapter",
    "Alias",
    "BaseModel",
    "EngineReading",
    "Feedback",
    "GuardrailPolicy",
    "OwnTokens",
    "Replica",
    "Residence",
    "Rollout",
    "RolloutEvent",
]
