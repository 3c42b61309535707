"""The calls of modules in a forward pass, traced by torch.fx, each of which can be replaced."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import fx, nn


class ModuleCalls:
    """The calls of modules in a forward pass of a model.

    Attributes:
        rewritable: The calls of modules that can be replaced without an effect elsewhere, in the
            order of the pass. Such a module is called once, with one argument, and has one name, no
            hooks, and weights that nothing else uses.
    """

    def __init__(self, model: nn.Module) -> None:
        """Trace a model.

        Raises:
            Exception: torch.fx cannot trace it (control flow that depends on values).
        """
        self._model = model
        nodes = list(fx.symbolic_trace(model).graph.nodes)
        self._modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
        called = [node for node in nodes if node.op == "call_module"]
        times = Counter(id(self.module(node)) for node in called)
        names = Counter(id(module) for module in self._modules.values())
        holders = Counter(id(p) for m in model.modules() for p in m._parameters.values())
        read = {id(_attribute(model, node.target)) for node in nodes if node.op == "get_attr"}

        def is_alone(node: fx.Node) -> bool:
            module = self.module(node)
            own = {id(p) for p in module.parameters()}
            single = times[id(module)] == names[id(module)] == 1 and not own & read
            return single and all(holders[key] == 1 for key in own) and not _has_hooks(module)

        self.rewritable = [
            node for node in called if len(node.args) == 1 and not node.kwargs and is_alone(node)
        ]

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that a call runs now."""
        return self._modules[str(node.target)]

    def before(self, node: fx.Node) -> fx.Node | None:
        """Return the call whose output is used by this one only, without identities between."""
        source = node.args[0]
        while isinstance(source, fx.Node) and source in self.rewritable and len(source.users) == 1:
            if type(self.module(source)) is not nn.Identity:
                return source
            source = source.args[0]
        return None

    def replace(self, node: fx.Node, module: nn.Module) -> None:
        """Let a call run another module."""
        self._modules[str(node.target)] = module
        self._model.set_submodule(str(node.target), module)


def _attribute(model: nn.Module, path: Any) -> Any:
    owner, _, name = str(path).rpartition(".")
    return getattr(model.get_submodule(owner), name, None)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
