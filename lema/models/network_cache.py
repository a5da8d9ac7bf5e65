"""Networks in memory: models that are adapters of one base share it, and from the second adapter on a switch loads
nothing anew."""

import threading
from typing import Any
from weakref import WeakValueDictionary

from lema.models.local import load_network, load_tokenizer

_all: "WeakValueDictionary[tuple[str, str | None], Loaded]" = WeakValueDictionary()


class Loaded:
    """The network of a folder or hub model, with one adapter or none, and its tokenizer. Who asks holds the `lock`."""

    def __init__(self, location: str, revision: str | None) -> None:
        self.tokenizer = load_tokenizer(location, revision)
        self.lock = threading.RLock()
        self._from = location, revision
        self._network = load_network(location, revision).eval()
        self.config, self.generation_config = self._network.config, self._network.generation_config
        self._adapter: str | None = None
        self._own: dict[Any, Any] | None = None  # what the weights are that some adapter has changed

    def network(self, adapter: str | None) -> Any:
        """The network with this adapter and no other, to the bit as if it were loaded for it.

        Merged: the product of the low-rank matrices is then made once, not at every token. Taking it off again would
        round, so the weights that it is added to are put back from copies in the machine's memory. Those are made from
        the second adapter on, for which the network is loaded anew: one adapter needs none.
        """
        if adapter == self._adapter:
            return self._network
        import torch

        before, self._adapter = self._adapter, _NOBODYS
        # Weights that inference mode has touched could not be changed outside it.
        with torch.inference_mode(False), torch.no_grad():
            if before is not None:
                self._restore()
            if adapter is not None:
                self._merge(adapter)
        self._adapter = adapter
        return self._network

    def _restore(self) -> None:
        if self._own is None:
            self._own, self._network = {}, None
            self._network = load_network(*self._from).eval()
        for weight, own in self._own.items():
            weight.copy_(own)

    def _merge(self, adapter: str) -> None:
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(self._network, adapter)
        if self._own is not None:
            layers = [one.get_base_layer() for one in tuned.modules() if hasattr(one, "get_base_layer")]
            for weight in (one for layer in layers for one in layer.parameters()):
                if weight not in self._own:
                    self._own[weight] = weight.detach().to("cpu", copy=True)
        self._network = tuned.merge_and_unload().eval()


# No adapter has this name: of a network that is between two, or was left there by an error.
_NOBODYS = ""


def loaded(location: str, revision: str | None) -> Loaded:
    """The one that is in memory, as long as somebody uses it, or else a new one; raises RunError when it cannot be
    loaded."""
    found = _all.get((location, revision))
    if found is None:
        found = _all[location, revision] = Loaded(location, revision)
    return found
