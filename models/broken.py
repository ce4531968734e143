"""What stands in the registry for a plug-in that cannot be registered: its trials fail with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from models.contract import Fit, ModelEntry
from models.names import BrokenPlugin
from models.sequences import InputSpec, TargetSpec


@dataclass(frozen=True)
class NoConfig:
    """Nothing is known of its options."""


@dataclass(frozen=True)
class Broken:
    """reason: why the plug-in cannot be registered, in one sentence."""

    reason: str

    def build(self, inputs: InputSpec, target: TargetSpec, causal: bool, config: object) -> NoReturn:
        """Raises BrokenPlugin."""
        raise BrokenPlugin(self.reason)

    def refuses(self, inputs: InputSpec, target: TargetSpec, causal: bool) -> NoReturn:
        """Raises BrokenPlugin: a trial asks this first."""
        raise BrokenPlugin(self.reason)


def stand_in(name: str, reason: str) -> ModelEntry:
    """An entry that can be listed and named in suites, and whose every trial fails with the reason."""
    broken = Broken(reason)
    return ModelEntry(name, "other", NoConfig(), broken.build, Fit.OWN, "", reason, refuses=broken.refuses)
