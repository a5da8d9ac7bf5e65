"""What an endpoint's faults mean, and what follows from each."""

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lema.models import Model
from lema.params import Endpoint

TOO_LONG = re.compile(
    r"context.{0,20}(length|window)|maximum.{0,20}tokens|too (long|many tokens)|string_above_max_length", re.IGNORECASE
)
FILTERED = re.compile(r"content.?(filter|policy|management)|ResponsibleAI|moderation|flagged", re.IGNORECASE)
NO_CREDIT = re.compile(r"insufficient.?(quota|credit|balance|funds)|billing|credit balance", re.IGNORECASE)
NO_MODEL = re.compile(r"model_not_found|invalid_model|model.{0,80}(does not exist|not found|unknown)", re.IGNORECASE)
WRONG_KEY = re.compile(r"(invalid|incorrect|wrong|missing).{0,10}api.?key|API_KEY_INVALID", re.IGNORECASE)
UNEXPECTED = re.compile(r"\b(?:unexpected|unknown|unrecognized|extra) (?:field|parameter|input)s?\b(.*)", re.IGNORECASE)
OURS = {"max_tokens", "seed", "stop", "temperature", "top_k", "top_p"}
NOT_TAKEN = ("unsupported_parameter", "unknown_parameter", "unsupported_value")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request has no reply, and what follows: `retry` it, wait for the rate `limit`, let this `row` fail,
    record that it was `refused`, or `stop`, because every request will fail the same way.

    `wait` is what the endpoint asks for, in seconds. `proof` says that key, model and credit are in order, since the
    endpoint has looked at the prompt; `overload` that less at once may help.
    """

    what: Literal["retry", "limit", "row", "refused", "stop"]
    reason: str
    wait: float | None = None
    proof: bool = False
    overload: bool = False


MALFORMED = Fault("retry", "malformed reply")


def of_exception(error: Exception, model: Model, endpoint: Endpoint) -> Fault:
    """What it means that the client raised: nobody there, a lost connection, no end of the reply in time."""
    import aiohttp
    import httpx2

    known = (httpx2.HTTPError, aiohttp.ClientError, OSError, TimeoutError)
    if not isinstance(error, known):
        return Fault("row", type(error).__name__)
    slow = isinstance(error, TimeoutError | httpx2.ReadTimeout)
    reason = f"endpoint {model.endpoint} was not reached, or gave no reply within {endpoint.timeout:g} s"
    return Fault("retry", reason, overload=slow)


def of_status(status: int, headers: Mapping[str, str], content: bytes, model: Model, endpoint: Endpoint) -> Fault:
    """What a status of 400 and more means. What a server says may quote the prompt or the key, so only its codes are
    passed on."""
    where = f"endpoint {model.endpoint}"
    error = _error(content)
    kind, parameter = _code(error.get("code") or error.get("type")), _code(error.get("param"))
    said = " ".join(str(error.get(name) or "") for name in ("code", "type", "status", "message"))
    code = f"{status} {kind}".strip()
    if status == 401 or (status in (400, 403) and WRONG_KEY.search(said)):
        return Fault("stop", f"{where} refuses the key in {endpoint.key}" if endpoint.key else f"{where} wants a key")
    if FILTERED.search(said) and status in (400, 403, 422):
        return Fault("refused", f"refused by the content filter ({code})", proof=True)
    if status == 402 or (status in (400, 403, 429) and NO_CREDIT.search(said)):
        return Fault("stop", f"no credit left at {where} ({code})")
    if status == 403:
        return Fault("stop", f"{where} forbids model {model.name} ({code})")
    if status == 404 or (status in (400, 422) and NO_MODEL.search(said)):
        return Fault("stop", f"{where} knows no model {model.name}, or its url is wrong ({code})")
    if status == 429:
        return Fault("limit", f"rate limit ({code})", retry_after(headers), overload=True)
    if status in (408, 409, 425) or status >= 500:
        return Fault("retry", f"server error ({code})", retry_after(headers), overload=status in (408, 503, 529))
    if TOO_LONG.search(said) or status == 413:
        return Fault("row", f"the prompt is too long for the model ({code})", proof=True)
    if kind in NOT_TAKEN or (status in (400, 422) and (parameter := _unexpected(error))):
        return Fault("stop", f"{where} does not take {parameter} ({code}); the option omit leaves parameters out")
    return Fault("row", f"bad request ({code})")


def _error(content: bytes) -> Mapping[str, Any]:
    """The object that says what went wrong: under `error`, as OpenAI has it, or the whole body, as others do."""
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    said = said[0] if isinstance(said, list) and said else said
    inner = said.get("error", said) if isinstance(said, Mapping) else {}
    return inner if isinstance(inner, Mapping) else {"message": inner}


def _unexpected(error: Mapping[str, Any]) -> str:
    """The parameters of ours that a server says it does not know, in one of the ways in which servers built on
    FastAPI say so; empty when it is something else."""
    detail = error.get("detail") or error.get("message")
    if isinstance(detail, list):
        places = [one.get("loc") for one in detail if isinstance(one, Mapping) and one.get("type") == "extra_forbidden"]
        named = {str(place[-1]) for place in places if isinstance(place, list) and place}
    else:
        found = UNEXPECTED.search(str(detail))
        named = set(re.findall(r"\w+", found[1])) if found else set()
    return ", ".join(sorted(named & OURS))


def _code(code: object) -> str:
    """A code as it is if it can only be a code."""
    return str(code) if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", str(code)) and code is not None else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given in (milli)seconds or as a date; None when it does not say."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (value := headers.get("retry-after", "")).replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
