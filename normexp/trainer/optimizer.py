"""Adam, AdamW and SGD by torch's fused kernels and nothing around them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normexp.config.schema import OptimizerConfig, OptimizerName
from normexp.models.fuse import split_evenly

State = dict[str, Tensor]


class Group(NamedTuple):
    """Parameters that are treated alike."""

    parameters: list[nn.Parameter]
    decay: float
    factor: float = 1.0
    """Of the learning rate."""


class Optimizer:
    """What torch.optim's class of the same name does.

    A step of theirs is 0.1 ms of Python, a tenth of a step of a small network, and making the first
    one loads torch's compiler, which takes a second. The state is saved as theirs is: each can load
    the other's.
    """

    def __init__(self, groups: Sequence[Group], config: OptimizerConfig) -> None:
        """
        Args:
            config: the kind and its settings.
        """
        self.config = config
        self.groups = [group for group in groups if group.parameters]
        self.rates = [config.lr]
        """The learning rate of each of the networks that are fused, or of the one."""
        self.state: dict[nn.Parameter, State] = {}
        self.step_count: Tensor | None = None
        """Steps taken, on the device, for the bias correction of Adam."""

    def parameters(self) -> Iterator[nn.Parameter]:
        for group in self.groups:
            yield from group.parameters

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        # Equal settings are one call: of kernels over lists the call is what costs.
        alike: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameters, decay, factor in self.groups:
            moved = alike.setdefault((decay, factor), [])
            moved.extend(p for p in parameters if p.grad is not None)
        if self.step_count is None:
            device = next(self.parameters()).device
            self.step_count = torch.zeros((), dtype=torch.float32, device=device)
        first = self.step_count.add_(1)
        for (decay, factor), parameters in alike.items():
            states = [self._state(parameter) for parameter in parameters]
            gradients = [parameter.grad for parameter in parameters]
            steps = [first] * len(states)
            if parameters and len(set(self.rates)) == 1:
                rate = self.rates[0] * factor
                self._kernel(parameters, gradients, states, steps, decay, rate)
            elif parameters:
                for rate, part in self._parts():
                    self._kernel(
                        [part(one) for one in parameters], [part(one) for one in gradients],
                        [{name: part(value) for name, value in own.items()} for own in states],
                        steps, decay, rate * factor,
                    )  # fmt: skip

    def _parts(self) -> Iterator[tuple[float, Callable[[Any], Tensor]]]:
        """The learning rates, each with what takes its networks out of a tensor of all, as a
        view."""
        count, first = len(self.rates), 0
        for rate, networks in groupby(self.rates):
            many = len(list(networks))

            def part(whole: Any, first: int = first, many: int = many) -> Tensor:
                each = len(whole) // count
                own: Tensor = whole.detach().narrow(0, first * each, many * each)
                return own

            yield rate, part
            first += many

    def _state(self, parameter: nn.Parameter) -> State:
        found = self.state.get(parameter)
        if found is None:
            found = {name: torch.zeros_like(parameter) for name in self._names()}
            self.state[parameter] = found
        return found

    def _names(self) -> tuple[str, ...]:
        if self.config.name is OptimizerName.sgd:
            return ("momentum_buffer",) if self.config.momentum else ()
        return ("exp_avg", "exp_avg_sq")

    def _kernel(
        self, parameters: Any, gradients: Any, states: list[State], steps: Any, decay: float,
        lr: float,
    ) -> None:  # fmt: skip
        config = self.config
        if config.name is OptimizerName.sgd:
            # A buffer of zeros is what torch's first step starts from.
            buffers: Any = [state["momentum_buffer"] for state in states if state]
            torch._fused_sgd_(
                parameters, gradients, buffers, weight_decay=decay, momentum=config.momentum,
                lr=lr, dampening=0.0, nesterov=config.nesterov, maximize=False,
                is_first_step=False,
            )  # fmt: skip
            return
        adam = config.name is OptimizerName.adam
        kernel: Any = torch._fused_adam_ if adam else torch._fused_adamw_
        kernel(
            parameters, gradients, [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states], [], steps, lr=lr,
            beta1=config.betas[0], beta2=config.betas[1], weight_decay=decay, eps=config.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """As torch.optim's: tensors by the number of the parameter, and the groups' settings."""
        numbers = {parameter: number for number, parameter in enumerate(self.parameters())}
        adam = self.config.name is not OptimizerName.sgd
        groups = [
            {
                **self._settings(), "lr": self.rates[0] * factor, "weight_decay": decay,
                "params": [numbers[parameter] for parameter in parameters],
            }
            for parameters, decay, factor in self.groups
        ]  # fmt: skip
        state = {numbers[p]: dict(self.state[p]) for p in numbers if p in self.state}
        if adam and self.step_count is not None:
            for own in state.values():
                own["step"] = self.step_count.clone()
        return {"state": state, "param_groups": groups}

    def _settings(self) -> dict[str, Any]:
        config = self.config
        if config.name is OptimizerName.sgd:
            return {"momentum": config.momentum, "dampening": 0.0, "nesterov": config.nesterov}
        return {"betas": (config.betas[0], config.betas[1]), "eps": config.eps}

    @property
    def remembers(self) -> bool:
        """Whether it holds what is needed to go on after a step."""
        return bool(self.state) or not self._names()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take up what was saved; learning rate and settings stay those of the configuration.

        Raises:
            ValueError: it is of other parameters, or of another kind of optimizer.
        """
        parameters = dict(enumerate(self.parameters()))
        self.state, self.step_count = {}, None
        for number, values in saved["state"].items():
            if number not in parameters:
                raise ValueError(f"there is no parameter {number}")
            parameter = parameters[number]
            own = {name: value for name, value in values.items() if isinstance(value, Tensor)}
            step = own.pop("step", None)
            if step is not None:
                self.step_count = step.to(parameter.device, torch.float32, copy=True)
            if own:
                kinds = {(value.shape, value.dtype) for value in own.values()}
                fits = kinds == {(parameter.shape, parameter.dtype)}
                if own.keys() != set(self._names()) or not fits:
                    raise ValueError(f"what it remembers of parameter {number} is of another")
                # In the parameter's own layout, which may not be the one that was saved: the
                # kernels go through all in the order of memory.
                like = torch.empty_like(parameter, requires_grad=False)
                self.state[parameter] = {n: like.clone().copy_(v) for n, v in own.items()}

    def join(self, parts: Sequence["Optimizer"]) -> None:
        """Take up what the optimizers of single networks remember, for the fused network of all.

        They are at the same step.
        """
        first = parts[0].step_count
        self.rates = [rate for part in parts for rate in part.rates]
        self.step_count = None if first is None else first.clone()
        own = zip(*(part.parameters() for part in parts), strict=True)
        for parameter, singles in zip(self.parameters(), own, strict=True):
            states = [part.state.get(p, {}) for part, p in zip(parts, singles, strict=True)]
            if states[0]:
                self.state[parameter] = {
                    name: torch.cat([state[name] for state in states]) for name in states[0]
                }

    def split(self, parts: Sequence["Optimizer"]) -> None:
        """Give each optimizer of a single network its part, as views, of what this remembers."""
        for part, rate in zip(parts, self.rates, strict=True):
            part.rates = [rate]
            part.step_count = None if self.step_count is None else self.step_count.clone()
        own = zip(*(part.parameters() for part in parts), strict=True)
        for parameter, singles in zip(self.parameters(), own, strict=True):
            for name, value in self.state.get(parameter, {}).items():
                pieces = split_evenly(value, len(parts))
                for part, single, piece in zip(parts, singles, pieces, strict=True):
                    part.state.setdefault(single, {})[name] = piece
