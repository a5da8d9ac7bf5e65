"""What an endpoint's faults mean, and what follows from each: `of_exception`, `of_status`, and then `decide`."""

import email.utils
import json
import math
import random
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from lema.models.types import Fault, Model
from lema.recipe.params import Endpoint

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between tries: exponential backoff, with jitter
CONNECT_RETRIES = 3  # at an endpoint that nobody has reached yet: a server that starts is there within seconds
TOO_LONG = re.compile(
    r"context.{0,20}(length|window)|maximum.{0,20}(tokens|model length)|too (long|many tokens)|string_above_max_length",
    re.IGNORECASE,
)
FILTERED = re.compile(r"content.?(filter|policy|management)|ResponsibleAI|moderation|flagged", re.IGNORECASE)
# What concerns every request counts in an error's fields, and at the beginning of a short message, after names of
# exceptions and small words alone: the rest may quote a row, and of one row nothing follows for the others.
SHORT = 400
_LEAD = (
    r"\W*(?:[\w.]*(?:error|exception)\W+)*(?:(?:you|your|the|this|an?|no|not|is|has|have|do|does|doesn't|any|enough|"
    r"requested|specified|provided|account|team|organization|newly|created|either|used|all|available)\W+){0,8}"
)


def _error_pattern(fields: str, text: str) -> re.Pattern[str]:
    """For the fields of an error and then, on a line of its own, its message."""
    return re.compile(rf"^.*(?:{fields}).*\n|\n{_LEAD}(?:{text})", re.IGNORECASE)


NO_CREDIT = _error_pattern(
    r"insufficient.?(?:quota|credit|balance|funds)|billing|credit.?balance",
    r"insufficient.?(?:quota|credit|balance|funds)|credits\b|credit balance|billing|"
    r"balance (?:is )?(?:too low|insufficient)|exceeded your current quota, please check your plan and billing",
)
NO_MODEL = _error_pattern(
    r"model_not_found|invalid_model",
    r"(?:invalid|unknown) model\b|model not (?:found|exist)|\S{1,100} is not a valid model|"
    r"model \S{1,100} (?:is )?(?:does not exist|not found|unknown|not available)",
)
WRONG_KEY = _error_pattern(
    r"(?:invalid|incorrect|wrong|missing).{0,10}api.?key|API_KEY_INVALID",
    r"(?:invalid|incorrect|wrong|missing)(?: or \w+)? api.?key|"
    r"api.?key (?:is )?(?:not valid|invalid|incorrect|missing)",
)
# The parameters that we send.
SAMPLING = {"max_tokens", "seed", "stop", "temperature", "top_k", "top_p"}
NOT_TAKEN = ("unsupported_parameter", "unknown_parameter", "unsupported_value")
EXTRA = ("extra_forbidden", "value_error.extra")  # of pydantic 2 and 1

_NAME = r"""['"`]?\w+['"`]?"""
_NAMES = rf"([{{\[(]?{_NAME}(?:, ?{_NAME})*[}}\])]?)"
# How servers say in a text that they do not take parameters, from its first word on.
REFUSALS = tuple(
    re.compile(text.replace("NAMES", _NAMES), re.IGNORECASE | re.DOTALL)
    for text in (
        # OpenAI and Azure, `transformers serve`
        r"(?:unexpected|unknown|unrecognized|unsupported|extra) (?:request )?(?:field|parameter|argument|input)s?"
        r"(?: supplied| in the request)?: ?NAMES(?:\.| is not supported\b.{0,120})?",
        r"NAMES: extra (?:inputs are|fields) not permitted",  # Anthropic
        r"extra inputs are not permitted, field: NAMES(?:, value: .{0,60})?",  # Fireworks
        r"property NAMES is unsupported(?:, did you mean .{0,40})?",  # Groq
        r"argument not supported(?: on this model)?: NAMES",  # xAI
        r"model \S{1,80} does not support parameter NAMES\.?",  # xAI
        r"invalid json payload received\. unknown name NAMES: cannot find field\.(?:\n.*)?",  # Gemini
        # pydantic's errors as texts: of servers that pass them on, and of vLLM
        r"\d+ validation errors? for \w+\n *NAMES\n *extra (?:inputs are|fields) not permitted.*",
        r"\[\{'type': 'extra_forbidden', 'loc': \('body', NAMES\).*",
    )
)


MALFORMED = Fault("retry", "malformed reply", lost=True)
GATEWAY_TIMEOUTS = (504, 524)  # the model may go on behind a gateway that no longer waits for it


# Names of exceptions of aiohttp and of the HTTP client of the `openai` package, neither of which is imported for that.
NO_ADDRESS = {"InvalidUrlClientError", "NonHttpUrlClientError", "UnsupportedProtocol"}
UNREACHED = {"ClientConnectorError", "ConnectError", "ConnectTimeout"}
TIMED_OUT = {"TimeoutError", "ReadTimeout"}
OF_NETWORK = {"ClientError", "HTTPError", "OSError", "TimeoutError"}


def of_exception(error: Exception, model: Model, endpoint: Endpoint) -> Fault:
    """What an exception of an HTTP client means: nobody is there, the connection was lost, the reply took too long."""
    where, setting = f"endpoint {model.endpoint}", f"run.endpoints.{model.endpoint}.url"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not kinds & OF_NETWORK:
        return Fault("row", type(error).__name__, lost=True)
    if kinds & NO_ADDRESS:
        return Fault("stop", f"{where}: {setting} is no address that begins with http:// or https://", unsent=True)
    if kinds & UNREACHED:
        why = _unreached(error, endpoint.url)
        return Fault("retry", f"{where} {why}, and that {setting} is right", unsent=True)
    if kinds & TIMED_OUT:
        return Fault("retry", f"{where} gave no reply within {endpoint.timeout:g} s", overload=True, lost=True)
    return Fault("retry", f"the connection to {where} was lost before its reply had come", lost=True)


def _unreached(error: BaseException | None, url: str) -> str:
    """Why no connection was made, and the first half of what to look at."""
    parts = urlsplit(url)
    # A user name or a query may be a secret.
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return f"refuses the connection to {address}: see that its server runs"
        if isinstance(error, socket.gaierror):
            return f"at {address}: the name {parts.hostname} is not known here: see that there is a network"
        if isinstance(error, ssl.SSLError):
            return f"at {address} makes no trusted TLS connection: see that its certificate is in order"
        error = error.__cause__ or error.__context__
    return f"cannot be reached at {address}: see that there is a network"


def of_status(status: int, headers: Mapping[str, str], content: bytes, model: Model, endpoint: Endpoint) -> Fault:
    """What a status of 400 and more means. What a server says may quote the prompt or the key, so only its codes are
    passed on."""
    where = f"endpoint {model.endpoint}"
    error = _error(content)
    kind, message = code_of(error.get("code") or error.get("type")), str(error.get("message") or "")
    said = " ".join(str(error.get(name) or "") for name in ("code", "type", "status"))
    quoted = f"{said} {message}"
    said = f"{said}\n{' '.join(message.split()) if len(message) <= SHORT else ''}"
    code = f"{status} {kind}".strip()
    if status == 401 or (status in (400, 403) and WRONG_KEY.search(said)):
        return Fault("stop", f"{where} refuses the key in {endpoint.key}" if endpoint.key else f"{where} wants a key")
    if FILTERED.search(quoted) and status in (400, 403, 422):
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
        overload, lost = status in (408, 503, 529), status in GATEWAY_TIMEOUTS
        return Fault("retry", f"server error ({code})", retry_after(headers), overload=overload, lost=lost)
    if TOO_LONG.search(quoted) or status == 413:
        return Fault("row", f"the prompt is too long for the model ({code})", proof=True)
    if status in (400, 422) and (parameters := _not_taken(error, model)):
        return Fault("stop", f"{where} does not take {parameters} ({code}); the option omit leaves parameters out")
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


def _not_taken(error: Mapping[str, Any], model: Model) -> str:
    """The parameters of ours that a server does not take; empty when it is something else. It says so in fields of its
    own, or in a text that begins with just that and names nothing but what was sent: others may quote a row."""
    options = model.options
    sent = {*(SAMPLING - set(options.get("omit") or ())), *(options.get("extra") or {}), "model"}
    parameter = code_of(error.get("param"))
    if code_of(error.get("code") or error.get("type")) in NOT_TAKEN:
        return (parameter if re.split(r"[.\[]", parameter)[0] in sent else "") if parameter else "a parameter"
    said = error.get("detail") or error.get("message")
    said = said.get("detail") if isinstance(said, Mapping) else said
    if isinstance(said, list):
        places = [one.get("loc") for one in said if isinstance(one, Mapping) and one.get("type") in EXTRA]
        named = {str(place[-1]) for place in places if isinstance(place, list) and place[:-1] in (["body"], [])} & sent
    else:
        found = next(filter(None, (form.fullmatch(str(said).strip()) for form in REFUSALS)), None)
        # Some call `top_k` topK.
        ours = {name.replace("_", "").lower(): name for name in sent}
        words = re.findall(r"\w+", found[1]) if found else []
        named = {ours.get(word.replace("_", "").lower(), "") for word in words}
        named = set() if "" in named else named
    return ", ".join(sorted(named))


def code_of(value: object) -> str:
    """A code as it is if it can only be a code."""
    return str(value) if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", str(value)) and value is not None else ""


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


@dataclass(slots=True)
class History:
    """The tries of one request so far: faults that may be its own, rate limits and when the first was met, tries that
    may have been billed without a reply, and whether any reached the endpoint."""

    retries: int = 0
    limits: int = 0
    limited_at: float = 0.0
    lost: int = 0
    sent: bool = False


def decide(
    fault: Fault, history: History, endpoint: Endpoint, *, reached: bool, now: float
) -> float | Literal["fail", "stop"]:
    """What follows from a fault, which is counted in the history: seconds to wait before another try, or that this
    request fails, or that all requests to its model would. `reached`: the endpoint has answered before."""
    history.lost, history.sent = history.lost + fault.lost, history.sent or not fault.unsent
    unreachable = fault.unsent and not reached and history.retries >= min(CONNECT_RETRIES, endpoint.retries)
    if fault.what == "stop" or unreachable:
        return "stop"
    if fault.what == "limit":
        # Not the request's fault: waited for as long as one request may take.
        history.limited_at = history.limited_at or now
        again = now - history.limited_at <= endpoint.timeout
        history.limits += 1
    else:
        again = fault.what == "retry" and history.retries < endpoint.retries
        history.retries += 1
    if not again:
        return "fail"
    # A pause that the endpoint asks for is kept by the throttle; one that asks for none is not asked again at once.
    return 0.0 if fault.wait else backoff(history.retries + history.limits)


def backoff(tries: int) -> float:
    """Seconds to wait after so many tries: doubled each time, with jitter."""
    seconds: float = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
    return seconds * random.uniform(0.5, 1.5)
