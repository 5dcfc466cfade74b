"""A picture of |difference| over time on a log scale, with the radius as an envelope. SVG, styled by the page."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from parity.report.data import Divergence, Trace

_WIDTH, _HEIGHT = 720, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, _WIDTH - 16, 36, _HEIGHT - 40
_TICKS = 6
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BELOW = 1e-3
"""What is a smaller part of the smallest radius than that is drawn at the bottom; zero is, too."""


@dataclass(frozen=True)
class _Scale:
    """Where a time step and a value are; low and high are decades."""

    start: float
    stop: float
    low: int
    high: int

    def x(self, timestep: float) -> str:
        return _short(_LEFT + (_RIGHT - _LEFT) * (timestep - self.start) / (self.stop - self.start))

    def y(self, value: float) -> str:
        """Within the frame, whatever the value: what is not finite is at the top."""
        if not value < math.inf:
            return _short(_TOP)
        decade = math.log10(value) if value > 0 else self.low
        part = (min(max(decade, self.low), self.high) - self.low) / (self.high - self.low)
        return _short(_BOTTOM - (_BOTTOM - _TOP) * part)


def picture(trace: Trace, first: Divergence | None) -> str:
    """The SVG. Nothing goes into it but numbers."""
    edges = _boundaries(trace.timesteps)
    scale = _Scale(edges[0], edges[-1], *decades(trace))
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Largest difference and radius over time">']
    parts += [*_axes(scale), _envelope(trace, edges, scale), _line(trace, scale), _outside(trace, scale)]
    if first is not None:
        parts += _mark(first.timestep, scale)
    return "".join([*parts, "</svg>"])


def _boundaries(timesteps: tuple[int, ...]) -> list[float]:
    """Between which time steps each point stands for."""
    return [timesteps[0] - 0.5, *((a + b) / 2 for a, b in pairwise(timesteps)), timesteps[-1] + 0.5]


def decades(trace: Trace) -> tuple[int, int]:
    """The powers of ten between which everything that is worth showing lies."""
    radii = [r for r in trace.radii if 0 < r < math.inf] or [1.0]
    seen = [*radii, *(d for d in trace.differences if _BELOW * min(radii) <= d < math.inf)]
    low, high = math.floor(math.log10(min(seen))), math.ceil(math.log10(max(seen)))
    return low, max(high, low + 1)


def _axes(scale: _Scale) -> Iterator[str]:
    for decade in range(scale.low, scale.high + 1, math.ceil((scale.high - scale.low) / _TICKS)):
        y = scale.y(10.0**decade)
        yield f'<path class="grid" d="M{_LEFT} {y}H{_RIGHT}"/>'
        yield f'<text class="down" x="{_LEFT - 8}" y="{y}" dy=".35em">10{str(decade).translate(_SUPERSCRIPT)}</text>'
    for timestep in ticks(scale.start, scale.stop):
        yield f'<path class="grid" d="M{scale.x(timestep)} {_BOTTOM}v5"/>'
        yield f'<text class="along" x="{scale.x(timestep)}" y="{_BOTTOM + 8}" dy="1em">{timestep:,}</text>'
    yield f'<text class="down" x="{_LEFT - 8}" y="{_BOTTOM + 8}" dy="1em">step</text>'


def ticks(start: float, stop: float) -> range:
    """Round numbers, about _TICKS of them."""
    least = max(1.0, (stop - start) / _TICKS)
    power = 10 ** math.floor(math.log10(least))
    step = next(int(n * power) for n in (1, 2, 5, 10) if n * power >= least)
    return range(math.ceil(start / step) * step, math.floor(stop) + 1, step)


def _envelope(trace: Trace, edges: list[float], scale: _Scale) -> str:
    steps = (f"V{scale.y(r)}H{scale.x(edge)}" for r, edge in zip(trace.radii, edges[1:], strict=True))
    return f'<path class="radius" d="M{scale.x(edges[0])} {_BOTTOM}{"".join(steps)}V{_BOTTOM}Z"/>'


def _line(trace: Trace, scale: _Scale) -> str:
    points = (f"{scale.x(t)} {scale.y(d)}" for t, d in zip(trace.timesteps, trace.differences, strict=True))
    # h0: a line of one point has no length, and only then round ends
    return f'<path class="difference" d="M{"L".join(points)}h0"/>'


def _outside(trace: Trace, scale: _Scale) -> str:
    """A dot each: a line without length, with round ends."""
    rows = zip(trace.timesteps, trace.differences, trace.radii, strict=True)
    dots = "".join(f"M{scale.x(t)} {scale.y(d)}h0" for t, d, r in rows if not d <= r)
    return f'<path class="outside" d="{dots}"/>' if dots else ""


def _mark(timestep: int, scale: _Scale) -> Iterator[str]:
    """The first divergence, its words on the side where there is room."""
    x, right = scale.x(timestep), timestep > (scale.start + scale.stop) / 2
    yield f'<path class="first" d="M{x} {_TOP - 8}V{_BOTTOM}"/>'
    yield (
        f'<text class="{"down" if right else "from"}" x="{x}" dx="{-6 if right else 6}" y="{_TOP - 14}">'
        f"first outside: timestep {timestep:,}</text>"
    )


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
