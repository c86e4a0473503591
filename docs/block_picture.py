"""Draw one block of P-SpikeSSM: `python docs/block_picture.py` writes pictures/block.svg.

Spikes in the picture are those of the equations: drawn from the probabilities of a small, seeded
state space, so that the picture shows what the block computes.
"""

import pathlib

import numpy as np

STEPS, NEURONS = 26, 5
BOX, GAP, TOP, HEIGHT = 150, 56, 70, 74
INK, PALE, BLUE, RED = "#24292f", "#eef2f7", "#1f6feb", "#cf222e"
STAGES = (  # name, equation, what flows out of it
    ("norm, sample", "p = clamp(a x + b)", "spikes"),
    ("state space", "h = Λh + Bs, y = Re(Ch)", "real"),
    ("sample", "p = clamp(a y + b)", "spikes"),
    ("mix neurons", "gelu(W s + c)", "real"),
    ("add", "x + mixed", None),
)


def signals(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return spikes in, the real output of a state space, and spikes out; each (neurons, steps)."""
    spikes = (rng.random((NEURONS, STEPS)) < 0.3).astype(float)
    pole = np.exp(-0.25 + 1j * np.linspace(0.2, 1.1, NEURONS))
    state, outputs = np.zeros(NEURONS, complex), []
    for step in range(STEPS):
        state = pole * state + spikes[:, step]
        outputs.append(state.real)
    y = np.array(outputs).T
    fires = rng.random(y.shape) < np.clip(0.35 * y, 0, 1)
    return spikes, y, fires.astype(float)


def raster(spikes: np.ndarray, x: float, y: float, width: float) -> list[str]:
    """Draw spikes as ticks."""
    lines = []
    for neuron, step in zip(*np.nonzero(spikes)):
        left, top = x + width * step / STEPS, y + 9 * neuron
        lines.append(f'<path d="M{left:.1f} {top:.1f}v7" stroke="{RED}" stroke-width="1.6"/>')
    return lines


def curves(values: np.ndarray, x: float, y: float, width: float) -> list[str]:
    """Draw a curve for each neuron."""
    lines = []
    for neuron, row in enumerate(values):
        points = " ".join(
            f"{x + width * step / STEPS:.1f},{y + 9 * neuron + 4 - 2.4 * value:.1f}"
            for step, value in enumerate(row)
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="1"/>')
    return lines


def text(x: float, y: float, words: str, size: int = 13, **style: str) -> str:
    """Write centred words."""
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    place = f'x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="middle"'
    return f"<text {place}{more}>{words}</text>"


def picture() -> str:
    """Return the picture as SVG."""
    spikes, y, fired = signals(np.random.default_rng(7))
    width = len(STAGES) * BOX + (len(STAGES) + 1) * GAP
    middle = TOP + HEIGHT / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 240" role="img" '
        'font-family="sans-serif">',
        "<title>A block of P-SpikeSSM</title>",
        f'<rect width="{width}" height="240" fill="#ffffff"/>',
        f'<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>',
    ]
    arrow = f'stroke="{INK}" stroke-width="1.4" fill="none" marker-end="url(#tip)"'
    shown = {0: (raster, spikes), 1: (curves, y), 2: (raster, fired)}
    for number, (name, equation, flows) in enumerate(STAGES):
        left = GAP + number * (BOX + GAP)
        parts += [
            f'<path d="M{left - GAP + 6} {middle}H{left - 3}" {arrow}/>',
            f'<rect x="{left}" y="{TOP}" width="{BOX}" height="{HEIGHT}" rx="7" fill="{PALE}" '
            f'stroke="{INK}"/>',
            text(left + BOX / 2, TOP + 30, name, 15, font_weight="bold", fill=INK),
            text(left + BOX / 2, TOP + 52, equation, 11 if number == 1 else 12, fill=INK),
        ]
        if flows:
            colour = RED if flows == "spikes" else BLUE
            parts.append(text(left + BOX + GAP / 2, middle - 9, flows, 11, fill=colour))
        if number in shown:
            draw, values = shown[number]
            parts += draw(values, left, TOP + HEIGHT + 22, BOX)
    end = width - GAP
    parts += [
        f'<path d="M{end + 3} {middle}H{width - 8}" {arrow}/>',
        f'<path d="M{GAP - 40} {middle}V34H{end - BOX / 2}V{TOP - 3}" {arrow}/>',
        text(width / 2, 26, "x, one real number for each neuron and step, goes past the block", 12,
             fill=INK),
        text(8, middle - 9, "x", 13, font_style="italic", fill=INK),
        text(GAP + BOX / 2, 232, "s, drawn with p", 12, fill=RED),
        text(GAP * 2 + BOX * 1.5, 232, "y, remembered spikes", 12, fill=BLUE),
        text(GAP * 3 + BOX * 2.5, 232, "s, drawn with p", 12, fill=RED),
        text(end - BOX - GAP / 2, 200, "all steps at once, in parallel; or step by step,", 12,
             fill=INK),
        text(end - BOX - GAP / 2, 217, "with the same noise", 12, fill=INK),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (pathlib.Path(__file__).parent / "pictures" / "block.svg").write_text(picture())
