"""Networks in memory: models that are adapters of one base share it, and a switch of adapters loads nothing anew."""

import threading
from typing import Any
from weakref import WeakValueDictionary

from lema.models._local import load_network, load_tokenizer

_all: "WeakValueDictionary[tuple[str, str | None], Loaded]" = WeakValueDictionary()


class Loaded:
    """The network of a folder or hub model, with one adapter or none, and its tokenizer. Who asks holds the `lock`."""

    def __init__(self, location: str, revision: str | None) -> None:
        self.tokenizer = load_tokenizer(location, revision)
        self.lock = threading.RLock()
        self._network = load_network(location, revision).eval()
        self._adapter: str | None = None
        self._own: dict[Any, Any] = {}  # what the weights are that some adapter has changed

    def network(self, adapter: str | None) -> Any:
        """The network with this adapter and no other, to the bit as if it were loaded for it.

        Merged: the product of the low-rank matrices is then made once, not at every token. The weights that it is
        added to are put back from copies in the machine's memory, since taking it off again would round.
        """
        if adapter == self._adapter:
            return self._network
        import torch

        # Weights that inference mode has touched could not be changed outside it.
        with torch.inference_mode(False), torch.no_grad():
            for weight, own in self._own.items():
                weight.copy_(own)
            if adapter is not None:
                from peft import PeftModel

                tuned = PeftModel.from_pretrained(self._network, adapter)
                layers = [one.get_base_layer() for one in tuned.modules() if hasattr(one, "get_base_layer")]
                for weight in (one for layer in layers for one in layer.parameters()):
                    if weight not in self._own:
                        self._own[weight] = weight.detach().to("cpu", copy=True)
                self._network = tuned.merge_and_unload().eval()
        self._adapter = adapter
        return self._network


def loaded(location: str, revision: str | None) -> Loaded:
    """The one that is in memory, as long as somebody uses it, or else a new one; raises RunError when it cannot be
    loaded."""
    found = _all.get((location, revision))
    if found is None:
        found = _all[location, revision] = Loaded(location, revision)
    return found
