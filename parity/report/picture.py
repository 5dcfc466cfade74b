"""A picture of |difference| over time on a log scale, with the radius as an envelope. SVG, styled by the page."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from parity.report.data import Divergence, Trace

WIDTH, HEIGHT = 720, 330
LEFT, RIGHT, TOP, BOTTOM = 84, WIDTH - 16, 36, HEIGHT - 40
TICKS = 6
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
BELOW = 1e-3
"""What is a smaller part of the smallest radius than that is drawn at the bottom; zero is, too."""


@dataclass(frozen=True)
class Scale:
    """Where a time step and a value are; low and high are decades."""

    start: float
    stop: float
    low: int
    high: int

    def x(self, timestep: float) -> str:
        return short(LEFT + (RIGHT - LEFT) * (timestep - self.start) / (self.stop - self.start))

    def y(self, value: float) -> str:
        """Within the frame, whatever the value: what is not finite is at the top."""
        if not value < math.inf:
            return short(TOP)
        decade = math.log10(value) if value > 0 else self.low
        part = (min(max(decade, self.low), self.high) - self.low) / (self.high - self.low)
        return short(BOTTOM - (BOTTOM - TOP) * part)


def picture(trace: Trace, first: Divergence | None) -> str:
    """The SVG. Nothing goes into it but numbers."""
    edges = boundaries(trace.timesteps)
    scale = Scale(edges[0], edges[-1], *decades(trace))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Largest difference and radius over time">']
    parts += [*axes(scale), envelope(trace, edges, scale), line(trace, scale), outside(trace, scale)]
    if first is not None:
        parts += mark(first.timestep, scale)
    return "".join([*parts, "</svg>"])


def boundaries(timesteps: tuple[int, ...]) -> list[float]:
    """Between which time steps each point stands for."""
    return [timesteps[0] - 0.5, *((a + b) / 2 for a, b in pairwise(timesteps)), timesteps[-1] + 0.5]


def decades(trace: Trace) -> tuple[int, int]:
    """The powers of ten between which everything that is worth showing lies."""
    radii = [r for r in trace.radii if 0 < r < math.inf] or [1.0]
    seen = [*radii, *(d for d in trace.differences if BELOW * min(radii) <= d < math.inf)]
    low, high = math.floor(math.log10(min(seen))), math.ceil(math.log10(max(seen)))
    return low, max(high, low + 1)


def axes(scale: Scale) -> Iterator[str]:
    for decade in range(scale.low, scale.high + 1, math.ceil((scale.high - scale.low) / TICKS)):
        y = scale.y(10.0**decade)
        yield f'<path class="grid" d="M{LEFT} {y}H{RIGHT}"/>'
        yield f'<text class="down" x="{LEFT - 8}" y="{y}" dy=".35em">10{str(decade).translate(SUPERSCRIPT)}</text>'
    for timestep in ticks(scale.start, scale.stop):
        yield f'<path class="grid" d="M{scale.x(timestep)} {BOTTOM}v5"/>'
        yield f'<text class="along" x="{scale.x(timestep)}" y="{BOTTOM + 8}" dy="1em">{timestep:,}</text>'
    yield f'<text class="down" x="{LEFT - 8}" y="{BOTTOM + 8}" dy="1em">step</text>'


def ticks(start: float, stop: float) -> range:
    """Round numbers, about TICKS of them."""
    least = max(1.0, (stop - start) / TICKS)
    power = 10 ** math.floor(math.log10(least))
    step = next(int(n * power) for n in (1, 2, 5, 10) if n * power >= least)
    return range(math.ceil(start / step) * step, math.floor(stop) + 1, step)


def envelope(trace: Trace, edges: list[float], scale: Scale) -> str:
    steps = (f"V{scale.y(r)}H{scale.x(edge)}" for r, edge in zip(trace.radii, edges[1:], strict=True))
    return f'<path class="radius" d="M{scale.x(edges[0])} {BOTTOM}{"".join(steps)}V{BOTTOM}Z"/>'


def line(trace: Trace, scale: Scale) -> str:
    points = (f"{scale.x(t)} {scale.y(d)}" for t, d in zip(trace.timesteps, trace.differences, strict=True))
    return f'<path class="difference" d="M{"L".join(points)}h0"/>'


def outside(trace: Trace, scale: Scale) -> str:
    """A dot each: a line without length, with round ends."""
    rows = zip(trace.timesteps, trace.differences, trace.radii, strict=True)
    dots = "".join(f"M{scale.x(t)} {scale.y(d)}h0" for t, d, r in rows if not d <= r)
    return f'<path class="outside" d="{dots}"/>' if dots else ""


def mark(timestep: int, scale: Scale) -> Iterator[str]:
    """The first divergence, its words on the side where there is room."""
    x, right = scale.x(timestep), timestep > (scale.start + scale.stop) / 2
    yield f'<path class="first" d="M{x} {TOP - 8}V{BOTTOM}"/>'
    yield (
        f'<text class="{"down" if right else "from"}" x="{x}" dx="{-6 if right else 6}" y="{TOP - 14}">'
        f"first outside: timestep {timestep:,}</text>"
    )


def short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
