"""What each cell is outside of rnn_scratch: its names in other libraries, its equation, its step in C.

A new cell is a class in `rnn_scratch.cells` and a row here; what is a matter of the loop stands in `recurrent`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from parity.ports.c_loop import Step, StepOf
from parity.ports.c_source import applied, for_each
from rnn_scratch.layers import Recurrent

# --- one step in C: z holds Wx x + b, and what of Wh h the loop has summed ---


def _activations(layer: Recurrent) -> list[Callable[[str], str]]:
    """Of a value in C: the activation, and the recurrent one where there is one."""
    settings = layer.cell.settings

    def of(setting: str) -> Callable[[str], str]:
        return lambda value: applied(settings[setting], value, layer.name)

    return [of("activation"), of("recurrent_activation")]


def _simple_rnn(layer: Recurrent, recurrent_kernel: str) -> Step:
    act, _ = _activations(layer)
    return Step(for_each(layer.units, f"h[n] = {act('z[n]')};"), gates=1, variables=f", z[{layer.units}]")


def _lstm(layer: Recurrent, recurrent_kernel: str) -> Step:
    u = layer.units
    act, gate = _activations(layer)
    i = "z[n]"
    f, g, o = (f"z[{n * u} + n]" for n in (1, 2, 3))
    update = [
        *for_each(2 * u, f"z[n] = {gate('z[n]')};"),  # i and f, which stand together
        *for_each(u, f"{g} = {act(g)};"),
        *for_each(u, f"{o} = {gate(o)};"),
        *for_each(u, f"c[n] = {f} * c[n] + {i} * {g};"),
        *for_each(u, f"h[n] = {o} * ({act('c[n]')});"),
    ]
    return Step(update, gates=4, variables=f", c[{u}] = {{0}}, z[{4 * u}]")


def _gru(layer: Recurrent, recurrent_kernel: str) -> Step:
    return _gru_after(layer) if layer.cell.settings["reset_after"] else _gru_before(layer, recurrent_kernel)


def _gru_after(layer: Recurrent) -> Step:
    """With reset_after r multiplies what comes of h, so that is summed apart, in q."""
    u = layer.units
    act, gate = _activations(layer)
    r, n = (f"z[{k * u} + n]" for k in (1, 2))
    update = [
        *for_each(2 * u, "z[n] += q[n];"),  # z and r, which stand together
        *for_each(2 * u, f"z[n] = {gate('z[n]')};"),
        *for_each(u, f"{n} += {r} * q[{2 * u} + n];"),
        *for_each(u, f"{n} = {act(n)};"),
        *for_each(u, f"h[n] = z[n] * h[n] + (1.0f - z[n]) * {n};"),
    ]
    return Step(update, gates=3, variables=f", z[{3 * u}], q[{3 * u}]", apart=True)


def _gru_before(layer: Recurrent, recurrent_kernel: str) -> Step:
    """Without it r multiplies h itself, so the third gate's sum waits for r."""
    u = layer.units
    act, gate = _activations(layer)
    r, n = (f"z[{k * u} + n]" for k in (1, 2))
    update = [
        *for_each(2 * u, f"z[n] = {gate('z[n]')};"),
        *for_each(u, f"r[n] = {r} * h[n];"),
        f"            for (int j = 0; j < {u}; j++)",
        f"                for (int k = {2 * u}; k < {3 * u}; k++)",
        f"                    z[k] += {recurrent_kernel}[j][k] * r[j];",
        *for_each(u, f"{n} = {act(n)};"),
        *for_each(u, f"h[n] = z[n] * h[n] + (1.0f - z[n]) * {n};"),
    ]
    return Step(update, gates=2, variables=f", z[{3 * u}], r[{u}]")


# --- the table ---


@dataclass(frozen=True)
class Elsewhere:
    """Of a cell. keras: its layer's class, whose cell's is that and "Cell". onnx: the operator, and which settings are
    its activations, in ONNX's order. torch: the class in torch.nn, and what its activation can be. equation: one step,
    in Keras's letters. c_step: what the loop in C needs of it."""

    keras: str
    onnx: str
    onnx_activations: tuple[str, ...]
    torch: str
    torch_activations: tuple[str, ...]
    equation: str
    c_step: StepOf


ELSEWHERE: Mapping[str, Elsewhere] = {
    "simple_rnn": Elsewhere(
        keras="SimpleRNN",
        onnx="RNN",
        onnx_activations=("activation",),
        torch="RNN",
        torch_activations=("tanh", "relu"),
        equation="h_t = tanh(Wx x_t + Wh h_{t-1} + b)",
        c_step=_simple_rnn,
    ),
    "lstm": Elsewhere(
        keras="LSTM",
        onnx="LSTM",
        onnx_activations=("recurrent_activation", "activation", "activation"),
        torch="LSTM",
        torch_activations=("tanh",),
        equation="i, f, o = sigmoid(Wx x_t + Wh h_{t-1} + b); c~ = tanh(Wx x_t + Wh h_{t-1} + b); "
        "c_t = f c_{t-1} + i c~; h_t = o tanh(c_t)",
        c_step=_lstm,
    ),
    "gru": Elsewhere(
        keras="GRU",
        onnx="GRU",
        onnx_activations=("recurrent_activation", "activation"),
        torch="GRU",
        torch_activations=("tanh",),
        equation="z, r = sigmoid(Wx x_t + Wh h_{t-1} + b); "
        "h~ = tanh(Wx x_t + b + r (Wh h_{t-1} + b_h)) with reset_after, tanh(Wx x_t + Wh (r h_{t-1}) + b) without; "
        "h_t = z h_{t-1} + (1 - z) h~",
        c_step=_gru,
    ),
}
"""By the cell's name in rnn_scratch."""
