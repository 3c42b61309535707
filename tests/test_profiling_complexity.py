"""Counted costs, compared with formulas worked out by hand."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from profiling.complexity import Complexity, complexity
from profiling.errors import ProfilingError
from profiling.memory import peak_memory_bytes

FLOAT = 4


class Concat(nn.Module):
    """Joins its inputs along the channels."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


class DenseBlock(nn.Module):
    """Two layers, each of which sees the input and all outputs before it."""

    def __init__(self, channels: int = 4, growth: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, growth, 1)
        self.second = nn.Conv2d(channels + growth, growth, 3, padding=1)
        self.join_first = Concat()
        self.join_second = Concat()

    def forward(self, features: Tensor) -> Tensor:
        features = self.join_first(features, self.first(features))
        joined: Tensor = self.join_second(features, self.second(features))
        return joined


def conv(*args: int, **options: int | bool) -> nn.Module:
    return nn.Conv2d(*args, **options)  # type: ignore[arg-type]


def deconv(*args: int, **options: int | bool) -> nn.Module:
    return nn.ConvTranspose2d(*args, **options)  # type: ignore[arg-type]


# Layer, input shape, parameters, MACs = pixels x kernel x channels in x out / groups.
LAYERS = [
    (conv(3, 8, 3, padding=1), (1, 3, 8, 8), 3 * 8 * 9 + 8, 64 * 9 * 3 * 8, "convolution"),
    (conv(3, 8, 3, bias=False), (2, 3, 8, 8), 3 * 8 * 9, 2 * 36 * 9 * 3 * 8, "convolution"),
    (conv(3, 8, 3, stride=2, padding=1), (1, 3, 8, 8), 224, 16 * 9 * 3 * 8, "convolution"),
    (conv(4, 8, 3, groups=2), (1, 4, 6, 6), 2 * 8 * 9 + 8, 16 * 9 * 2 * 8, "convolution"),
    (conv(4, 4, 3, padding=1, groups=4), (1, 4, 5, 5), 4 * 9 + 4, 25 * 9 * 4, "depthwise"),
    (conv(4, 6, 1), (1, 4, 5, 5), 4 * 6 + 6, 25 * 4 * 6, "pointwise"),
    (deconv(4, 6, 3, padding=1), (1, 4, 5, 5), 4 * 6 * 9 + 6, 25 * 9 * 4 * 6, "convolution"),
    (deconv(4, 6, 2, stride=2), (1, 4, 5, 5), 4 * 6 * 4 + 6, 25 * 4 * 4 * 6, "convolution"),
    (deconv(4, 6, 3, padding=1, groups=2), (1, 4, 5, 5), 114, 25 * 9 * 4 * 3, "convolution"),
    (
        deconv(4, 4, 3, stride=2, padding=1, output_padding=1, groups=4),
        (1, 4, 5, 5),
        4 * 9 + 4,
        25 * 9 * 4,
        "depthwise",
    ),
    (deconv(4, 6, 1), (1, 4, 5, 5), 4 * 6 + 6, 25 * 4 * 6, "pointwise"),
    (nn.Linear(10, 7), (3, 10), 77, 3 * 10 * 7, "linear"),
    (nn.Linear(10, 7, bias=False), (2, 3, 10), 70, 6 * 10 * 7, "linear"),
    (nn.BatchNorm2d(4), (1, 4, 5, 5), 8, 0, "batch_norm"),
    (nn.ELU(), (1, 4, 5, 5), 0, 0, "activation"),
    (nn.Upsample(scale_factor=2), (1, 4, 5, 5), 0, 0, "resampling"),
    (nn.AvgPool2d(2), (1, 4, 6, 6), 0, 0, "resampling"),
    (nn.MaxPool2d(2), (1, 4, 6, 6), 0, 0, "resampling"),
]


# fvcore's total also counts normalisation and resampling, one or two per element, as if MACs.
FVCORE_OPERATORS = ("conv", "linear", "addmm", "matmul", "bmm")


def confirmed(model: nn.Module, example: Tensor) -> Complexity:
    """Count, and ask two independent counters for the same MACs: torch's and fvcore's."""
    result = complexity(model.eval(), example)
    with torch.no_grad(), torch.random.fork_rng():
        with FlopCounterMode(display=False) as counter:
            model(example)
        analysis = FlopCountAnalysis(model, example)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
    assert counter.get_total_flops() == 2 * result.macs
    assert sum(by_operator[name] for name in FVCORE_OPERATORS) == result.macs
    return result


@pytest.mark.parametrize(("layer", "shape", "params", "macs", "kind"), LAYERS)
def test_one_layer_matches_its_formula(
    layer: nn.Module, shape: tuple[int, ...], params: int, macs: int, kind: str
) -> None:
    result = confirmed(layer, torch.rand(shape))
    assert (result.params, result.macs, result.flops) == (params, macs, 2 * macs)
    (row,) = result.rows
    assert (row.kind, row.input_shape, row.launches, row.calls) == (kind, shape, 1, 1)
    assert row.output_shape == tuple(layer.eval()(torch.rand(shape)).shape)


def test_bytes_are_operands_in_and_results_out() -> None:
    (row,) = complexity(nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 8, 8)).rows
    assert row.bytes_read == FLOAT * (2 * 3 * 64 + 3 * 8 * 9 + 8)
    assert row.bytes_written == FLOAT * 2 * 8 * 64
    assert row.activations == 2 * 8 * 64
    assert row.intensity == 2 * row.macs / (row.bytes_read + row.bytes_written)


def test_max_pooling_also_writes_its_indices() -> None:
    (row,) = complexity(nn.MaxPool2d(2), torch.rand(1, 4, 6, 6)).rows
    assert row.bytes_written == (FLOAT + 8) * 4 * 9


def test_concatenation_costs_bytes_but_no_macs() -> None:
    result = complexity(Concat(), (torch.rand(1, 2, 3, 3), torch.rand(1, 4, 3, 3)))
    assert (result.macs, result.launches) == (0, 1)
    assert result.bytes_read == result.bytes_written == FLOAT * 6 * 9
    assert result.uncounted_ops == {"aten::cat": 1}


def test_views_launch_nothing() -> None:
    result = complexity(
        nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 9))), torch.rand(1, 2, 3, 3)
    )
    assert (result.launches, result.bytes_read, result.bytes_written) == (0, 0, 0)


def test_rows_add_up_and_name_module_paths() -> None:
    model = nn.Sequential(DenseBlock(), nn.ELU())
    result = confirmed(model, torch.rand(1, 4, 5, 5))
    assert [row.path for row in result.rows] == [
        "0.first",
        "0.join_first",
        "0.second",
        "0.join_second",
        "1",
    ]
    assert result.macs == 25 * 4 * 2 + 25 * 9 * 6 * 2
    assert result.params == sum(row.params for row in result.rows)
    assert sum(row.macs for row in result.under("0")) == result.macs
    assert result.under("0.first")[0].module == "Conv2d"
    assert result.uncounted_ops == {"aten::cat": 2, "aten::elu": 1}


def test_work_outside_leaves_is_booked_on_the_module_that_does_it() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.conv(x)
            return out

    result = complexity(Residual(), torch.rand(1, 2, 3, 3))
    own, inner = {row.path: row for row in result.rows}[""], result.under("conv")[0]
    assert (own.launches, own.macs, own.kind) == (1, 0, "other")
    assert (inner.launches, inner.macs) == (1, 36)


def test_a_module_called_twice_counts_twice_but_owns_its_parameters_once() -> None:
    layer = nn.Conv2d(2, 2, 1)
    result = confirmed(nn.Sequential(layer, layer), torch.rand(1, 2, 3, 3))
    assert (result.macs, result.params, result.rows[0].calls) == (72, 6, 2)


def test_the_callers_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    model[1].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    complexity(model, torch.rand(1, 2, 3, 3, generator=torch.Generator()))
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_that_reads_values_is_run_as_it_is() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x) if x.sum().item() > 0 else x
            return out

    assert complexity(Picky(), torch.ones(1, 2, 3, 3)).macs == 54
    with pytest.raises(ProfilingError, match="cannot take an example of shape \\(1, 2, 3, 3\\)"):
        complexity(Picky(), torch.ones(1, 2, 3, 3, device="meta"))


def test_a_wrong_example_is_refused_in_one_line() -> None:
    with pytest.raises(ProfilingError, match=r"Conv2d cannot take .* \(1, 2, 3, 3\)") as error:
        complexity(nn.Conv2d(4, 4, 1), torch.rand(1, 2, 3, 3))
    assert "\n" not in str(error.value)


def test_inference_peak_holds_two_activations_at_a_time() -> None:
    chain = nn.Sequential(nn.ELU(), nn.ELU(), nn.ELU())
    # The example stays alive, and each layer needs its input and its output.
    assert peak_memory_bytes(chain, torch.rand(100)) == FLOAT * 300
    assert peak_memory_bytes(nn.Linear(10, 20, bias=False), torch.rand(5, 10)) == FLOAT * 350


def test_training_peak_adds_gradients_and_optimiser_state() -> None:
    layer, example = nn.Linear(10, 20, bias=False), torch.rand(5, 10)
    without = peak_memory_bytes(layer, example, training=True, moments=0)
    weights, gradients, scalars = FLOAT * 200, FLOAT * 200, FLOAT * 3
    assert without == weights + gradients + FLOAT * 50 + scalars
    assert peak_memory_bytes(layer, example, training=True) == without + 2 * weights
    assert layer.weight.grad is None


def test_what_moves_nothing_has_no_intensity_and_is_of_no_kind() -> None:
    (row,) = complexity(nn.Flatten(), torch.rand(1, 2, 3, 3)).rows
    assert (row.bytes_moved, row.intensity, row.kind) == (0, 0.0, "other")
    assert (row.launches, row.calls, row.input_shape, row.output_shape) == (
        *(0, 1),
        *((1, 2, 3, 3), (1, 18)),
    )


def test_totals_add_up_the_rows() -> None:
    result = complexity(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(2, 4))
    assert (result.params, result.macs, result.launches) == (15, 24, 2)
    assert result.activations == 2 * 3 + 2 * 3
    assert result.bytes_read == FLOAT * (2 * 4 + 4 * 3 + 3 + 2 * 3)
    assert result.bytes_written == FLOAT * (2 * 3 + 2 * 3)
    assert [row.bytes_moved for row in result.rows] == [FLOAT * 29, FLOAT * 12]


def test_rows_under_a_path_are_those_of_the_module_and_of_what_is_inside_it() -> None:
    model = nn.Sequential(DenseBlock(), nn.ELU())
    model.add_module("00", nn.ReLU())
    result = complexity(model, torch.rand(1, 4, 5, 5))
    inside = ["0.first", "0.join_first", "0.second", "0.join_second"]
    assert [row.path for row in result.under("0")] == inside
    assert [row.path for row in result.under("00")] == ["00"]
    assert result.under("0.fir") == ()


def test_containers_have_no_row_and_leaves_have_one_even_if_they_launch_nothing() -> None:
    model = nn.Sequential(nn.Sequential(nn.Identity()), nn.ReLU())
    assert [row.path for row in complexity(model, torch.rand(2, 3)).rows] == ["0.0", "1"]


def test_shapes_are_those_of_the_first_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(self.conv(x))
            return out

    (row,) = complexity(Twice(), torch.rand(1, 2, 7, 7)).rows
    assert (row.input_shape, row.output_shape) == ((1, 2, 7, 7), (1, 2, 5, 5))
    assert (row.calls, row.launches, row.macs) == (2, 2, (25 + 9) * 9 * 2 * 2)


def test_a_row_is_of_the_kind_of_its_heaviest_operation() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ x.T).sum()

    class Added(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.relu(x) + y  # the sum has no MACs either, but reads twice as much

    (row,) = complexity(Mixed(), torch.rand(4, 4)).rows
    assert (row.kind, row.macs, row.launches) == ("linear", 64, 3)
    (row,) = complexity(Added(), (torch.rand(9), torch.rand(9))).rows
    assert (row.kind, row.launches) == ("other", 2)


def test_an_operation_gets_its_named_arguments() -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(0, dtype=torch.float64)

    (row,) = complexity(Double(), torch.rand(5, 3)).rows
    assert (row.bytes_read, row.bytes_written) == (FLOAT * 15, 8 * 3)


def test_an_expanded_dimension_is_read_once() -> None:
    class Expanded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.expand(5, 3) * 2

    (row,) = complexity(Expanded(), torch.rand(1, 3)).rows
    assert (row.bytes_read, row.bytes_written) == (FLOAT * 3, FLOAT * 15)
    (row,) = complexity(Expanded(), torch.rand(5, 3)).rows
    assert (row.bytes_read, row.bytes_written) == (FLOAT * 15, FLOAT * 15)
