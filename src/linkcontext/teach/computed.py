"""Values that cost a run of the model, kept as long as what was taught stays the same."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass
class Computed:
    """Values by name, and the key of the taught pictures for which they were computed."""

    values: dict[str, Any] = field(default_factory=dict)
    key: Hashable = ()

    def once(self, key: Hashable, name: str, compute: Callable[[], Value]) -> Value:
        """A value for the pictures of `key`, computed on the first call. Values for other pictures are dropped."""
        if self.key != key:
            self.values, self.key = {}, key
        if name not in self.values:
            self.values[name] = compute()
        value: Value = self.values[name]
        return value

    def restore(self, key: Hashable, **values: Any) -> None:
        """Take values that were computed earlier for the pictures of `key`, without those that are None."""
        self.values, self.key = {name: value for name, value in values.items() if value is not None}, key
