"""What all native bodies have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A body of our own: unknown fields are mistakes and are named."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def changes(self) -> dict[str, Any]:
        """The fields that were named."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class StrictBody(Body):
    """Nothing is converted in silence: "1" is no number."""

    model_config = ConfigDict(strict=True)
