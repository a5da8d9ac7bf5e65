"""Weights of local models in memory: loading them, and sharing one base among the models that are adapters of it."""

import os
import threading
from typing import Any
from weakref import WeakValueDictionary

from lema.errors import RunError
from lema.models.tokenize import load_tokenizer, loading_error, silence_transformers
from lema.models.types import Model


def available_cores() -> int:
    """Processors that this process may use: fewer than the machine has, in a container or when pinned."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_network(location: str, revision: str | None = None, **options: Any) -> Any:
    """A causal language model on the GPU in bf16, or else on the CPU in fp32 (bf16 is slower there without matrix
    extensions); `options` go to `from_pretrained`. Raises RunError."""
    import torch
    from transformers import AutoModelForCausalLM

    silence_transformers()
    cuda = torch.cuda.is_available()
    options.setdefault("dtype", torch.bfloat16 if cuda else torch.float32)
    try:
        network = AutoModelForCausalLM.from_pretrained(location, revision=revision, **options)
    except (OSError, ValueError) as error:
        raise loading_error(location, error) from error
    return network if "device_map" in options else network.to("cuda" if cuda else "cpu")


def model_location(model: Model) -> str:
    """The folder or hub name that a local backend loads; raises RunError when the model has neither."""
    location = model.folder or model.name
    if location is None:
        raise RunError(f"model {model.label!r}: the {model.backend} backend needs the `name` of a folder or of the hub")
    return location


class SharedNetwork:
    """The network of a folder or hub model, with one adapter or none, and its tokenizer. Hold the `lock` to use it.

    From the second adapter on, a switch loads nothing anew.
    """

    def __init__(self, location: str, revision: str | None) -> None:
        self.tokenizer = load_tokenizer(location, revision)
        self.lock = threading.RLock()
        self._source = location, revision
        self._network = load_network(location, revision).eval()
        self.config, self.generation_config = self._network.config, self._network.generation_config
        self.context = int(getattr(self.config, "max_position_embeddings", 0)) or 1 << 30  # tokens
        self._adapter: str | None = None
        self._original: dict[Any, Any] | None = None  # weights that an adapter has changed, and their values before

    def network(self, adapter: str | None) -> Any:
        """The network with this adapter and no other, to the bit as if it were loaded for it.

        Merged: the product of the low-rank matrices is then made once, not at every token. Taking it off again would
        round, so the weights that it is added to are put back from copies in the machine's memory. Those are made from
        the second adapter on, for which the network is loaded anew: one adapter needs none.
        """
        if adapter == self._adapter:
            return self._network
        import torch

        previous, self._adapter = self._adapter, ""  # no adapter's name: until the switch has succeeded
        # Weights that inference mode has touched could not be changed outside it.
        with torch.inference_mode(False), torch.no_grad():
            if previous is not None:
                self._restore()
            if adapter is not None:
                self._merge(adapter)
        self._adapter = adapter
        return self._network

    def _restore(self) -> None:
        if self._original is None:
            self._original, self._network = {}, None
            self._network = load_network(*self._source).eval()
        for weight, original in self._original.items():
            weight.copy_(original)

    def _merge(self, adapter: str) -> None:
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(self._network, adapter)
        if self._original is not None:
            layers = [one.get_base_layer() for one in tuned.modules() if hasattr(one, "get_base_layer")]
            for weight in (one for layer in layers for one in layer.parameters()):
                if weight not in self._original:
                    self._original[weight] = weight.detach().to("cpu", copy=True)
        self._network = tuned.merge_and_unload().eval()


_networks: "WeakValueDictionary[tuple[str, str | None], SharedNetwork]" = WeakValueDictionary()


def shared_network(model: Model, processes: int = 1) -> SharedNetwork:
    """The network of a model's base that is in memory as long as somebody uses it, or else a new one; on the CPU, torch
    then computes on this process's share of the cores, of so many `processes`. Raises RunError when it cannot be
    loaded."""
    import torch

    location = model_location(model)
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, available_cores() // processes))
    found = _networks.get((location, model.revision))
    if found is None:
        found = _networks[location, model.revision] = SharedNetwork(location, model.revision)
    return found
