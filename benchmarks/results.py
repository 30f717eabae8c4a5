"""Results: medians with their spread, beside a peer's, as lines on the screen and as `results.json`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

FILE = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Result:
    """One number that was promised."""

    name: str
    unit: str
    samples: Sequence[float]
    target: str
    """In words, with the comparison: `ratio ≤ 1.15`."""
    met: bool
    peer: str | None = None
    peer_samples: Sequence[float] = ()
    more: dict[str, Any] = field(default_factory=dict)
    """Further facts, by name."""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def peer_value(self) -> float | None:
        """The peer's median."""
        return median(self.peer_samples) if self.peer_samples else None

    @property
    def ratio(self) -> float | None:
        """Value by the peer's value."""
        return self.value / self.peer_value if self.peer_value else None

    def as_data(self) -> dict[str, Any]:
        """As it stands in `results.json`."""
        peer_value = self.peer_value
        data: dict[str, Any] = {
            "name": self.name,
            "unit": self.unit,
            "value": _short(self.value),
            "peer": self.peer,
            "peer_value": None if peer_value is None else _short(peer_value),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "target": self.target,
            "met": self.met,
            "rounds": len(self.samples),
            "min": _short(min(self.samples)),
            "max": _short(max(self.samples)),
        }
        if self.peer_samples:
            data |= {"peer_min": _short(min(self.peer_samples)), "peer_max": _short(max(self.peer_samples))}
            data["difference"] = _short(self.value - median(self.peer_samples))
        return data | self.more

    def line(self) -> str:
        """As it is shown."""
        words = f"{self.name:25}{self.value:9.2f} {self.unit:10}{_spread(self.samples):22}"
        if self.peer_value is not None and self.ratio is not None:
            words += f"peer {self.peer_value:.2f} {_spread(self.peer_samples)}, "
            words += f"{self.value - self.peer_value:+.2f}, ratio {self.ratio:.3f}; "
        return f"{words}{self.target}: {'met' if self.met else 'MISSED'}"


def save(results: Sequence[Result], *, busy: float) -> None:
    """Write them into `results.json`; what was not measured this time stays, with the time of its own run.

    `busy`: how much of the machine others used before the run, in percent.
    """
    run = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "busy_before_percent": busy,
    }
    kept = {entry["name"]: entry for entry in json.loads(FILE.read_text())} if FILE.exists() else {}
    data = list((kept | {result.name: result.as_data() | run for result in results}).values())
    FILE.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _short(value: float) -> float:
    return round(value, 2)


def _spread(samples: Sequence[float]) -> str:
    return f"[{min(samples):.2f} … {max(samples):.2f}]"
