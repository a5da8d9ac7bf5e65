"""`FakeServer` with a Batch API, after https://platform.openai.com/docs/api-reference/batch, whose faults are planned.

    with BatchServer() as server:
        server.plans = [{"expire": 2}, {"lose": 1}]   # for the batches to come, in turn; then they go well
        server.calls = {"create": ["drop after"]}     # for the next calls of a kind
        ... server.url ...
        assert max(server.bought.values()) == 1       # how often each custom_id was answered, and paid for

A batch takes the next step of its life whenever somebody looks at it. It lives in this process, so the client may die.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fake_server import ERRORS, FakeServer

LIFE = ("validating", "validating", "in_progress", "finalizing", "completed")
QUEUED = ("validating", "in_progress", "finalizing")
FULL = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m. Limit: 90,000 enqueued tokens."}


@dataclass
class Made:
    """A batch: what its client sees, what is planned for it, and the states that are still to come."""

    seen: dict[str, Any]
    plan: dict[str, Any]
    path: str
    life: list[str] = field(default_factory=list)
    looks: int = 0


class BatchServer(FakeServer):
    """Plans: `fail` (an error of validation), `expire` or `cancel` (after so many answers), `lose`, `twice` (so many
    lines), `late` (looks before the output file is there), `lines` (a fault of `ERRORS` by the number of its request),
    `shuffle`, `torn` (the last line), `gone` (the output file), `unknown` (looks before the batch is known)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.files: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.batches: dict[str, Made] = {}
        self.plans: list[dict[str, Any]] = []
        self.calls: dict[str, list[str]] = {}
        self.bought: Counter[str] = Counter()
        self.most = 50_000  # requests a batch
        self.room: int | None = None  # requests in all batches that are not over
        self.listed = True
        self.life = LIFE
        # Called with the name of everything that happens, when it has happened and nobody was told.
        self.on: Callable[[str], None] = lambda what: None

    @property
    def sizes(self) -> list[int]:
        """How many requests each batch had, in the order of their creation."""
        return [made.seen["request_counts"]["total"] for made in self.batches.values()]

    async def _start(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v1/chat/completions", self._handle)
        application.router.add_post("/v1/completions", self._handle)
        application.router.add_post("/v1/files", self._call("upload", self._upload))
        application.router.add_get("/v1/files/{id}/content", self._call("content", self._content))
        application.router.add_post("/v1/batches", self._call("create", self._create))
        application.router.add_get("/v1/batches", self._call("list", self._list))
        application.router.add_get("/v1/batches/{id}", self._call("look", self._look))
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def _call(self, kind: str, answer: Callable[[web.Request], Any]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.headers.append(dict(request.headers))
            faults = self.calls.get(kind, [])
            fault, after, _ = (faults.pop(0) if faults else "").partition(" after")
            response = None
            if not fault or after or fault == "torn":
                response = await answer(request)
            if fault in ERRORS:
                status, error, headers = ERRORS[fault]
                return web.json_response({"error": error}, status=status, headers=headers)
            if fault == "html":
                return web.Response(text="<html>proxy</html>", content_type="text/html")
            if fault == "full":
                return web.json_response({"error": FULL}, status=429)
            if fault == "drop" or response is None:
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            if fault == "torn":
                stream = web.StreamResponse(headers={"Content-Length": str(len(response.body))})
                await stream.prepare(request)
                await stream.write(response.body[: len(response.body) // 2])
                self.on("half")
                assert request.transport is not None
                request.transport.close()
                return stream
            self.on(kind)
            return response

        return handle

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        name = f"file-in-{len(self.files)}"
        self.files[name], self.names[name] = file.file.read(), file.filename
        return web.json_response({"id": name, "object": "file", "bytes": len(self.files[name]), "purpose": "batch"})

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["input_file_id"] not in self.files:
            return _error(404, "No such File object")
        assert asked["completion_window"] == "24h"
        lines = self.files[asked["input_file_id"]].strip(b"\n").split(b"\n")
        queued = sum(
            made.seen["request_counts"]["total"] for made in self.batches.values() if made.seen["status"] in QUEUED
        )
        plan = self.plans.pop(0) if self.plans else {}
        fault = plan.get("fail") or self._fault([json.loads(line) for line in lines], asked["endpoint"])
        if self.room is not None and queued + len(lines) > self.room:
            fault = FULL
        life = list(self.life)
        if fault is not None:
            plan, life = {"problem": fault}, ["validating", "validating", "failed"]
        for what, end in (("expire", "expired"), ("cancel", "cancelled")):
            if what in plan:
                life = ["validating", "in_progress", "finalizing" if what == "expire" else "cancelling", end]
        seen = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": "24h",
            "status": life.pop(0),
            # As some servers do: there is no file.
            "output_file_id": None,
            "error_file_id": "",
            "created_at": 2_000_000_000 + len(self.batches),
            "metadata": asked.get("metadata"),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        self.batches[seen["id"]] = Made(seen, plan, asked["endpoint"], life)
        return web.json_response(seen)

    def _fault(self, lines: list[dict[str, Any]], path: str) -> dict[str, Any] | None:
        """What is wrong with a file."""
        found = [
            ("too_many_requests", len(lines) > self.most),
            ("duplicate_custom_id", len({line["custom_id"] for line in lines}) < len(lines)),
            ("mismatched_model", len({line["body"]["model"] for line in lines}) != 1),
            ("invalid_url", any(line["url"] != path or line["method"] != "POST" for line in lines)),
        ]
        return next(({"code": code, "message": "PROMPT TEXT", "line": 1} for code, wrong in found if wrong), None)

    async def _list(self, request: web.Request) -> web.Response:
        if not self.listed:
            return _error(404, "nothing here")
        newest = [made.seen for made in reversed(self.batches.values())]
        after = request.query.get("after")
        at = [one["id"] for one in newest].index(after) + 1 if after else 0
        page = newest[at : at + 2]
        return web.json_response({"object": "list", "data": page, "has_more": at + 2 < len(newest)})

    async def _look(self, request: web.Request) -> web.Response:
        made = self.batches.get(request.match_info["id"])
        if made is None:
            return _error(404, "no such batch")
        made.looks += 1
        if made.looks <= made.plan.get("unknown", 0):
            return _error(404, "no such batch")
        if made.life:
            made.seen["status"] = made.life.pop(0)
            if not made.life:
                self._finish(made)
        elif made.plan.get("late"):
            made.plan["late"] -= 1
        seen = dict(made.seen)
        if made.plan.get("late"):
            seen["output_file_id"] = None
        response = web.json_response(seen)
        self.on(seen["status"])
        return response

    def _finish(self, made: Made) -> None:
        plan, seen = made.plan, made.seen
        if "problem" in plan:
            seen["errors"] = {"object": "list", "data": [plan["problem"]]}
            return
        asked = [json.loads(line) for line in self.files[seen["input_file_id"]].strip(b"\n").split(b"\n")]
        end = plan.get("expire", plan.get("cancel", len(asked)))
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for number, one in enumerate(asked):
            fault = plan.get("lines", {}).get(number)
            line: dict[str, Any] = {"id": f"batch_req_{number}", "custom_id": one["custom_id"], "error": None}
            if number >= end:
                line |= {"response": None, "error": {"code": f"batch_{seen['status']}", "message": "PROMPT TEXT"}}
                bad.append(line)
            elif fault == "empty":
                good.append(line | {"response": {"status_code": 200, "body": {"choices": []}}})
            elif fault in ERRORS:
                line["response"] = {"status_code": ERRORS[fault][0], "body": {"error": ERRORS[fault][1]}}
                bad.append(line)
            else:
                self.requests.append(one["body"])
                self.bought[one["custom_id"]] += 1
                line["response"] = {"status_code": 200, "body": self._body(one["body"], fault)}
                good.append(line)
        seen["request_counts"].update(completed=len(good), failed=len(bad))
        good = good[plan.get("lose", 0) :]
        if plan.get("shuffle"):
            random.Random(0).shuffle(good)
        good += [{**line, "response": {"status_code": 200, "body": {}}} for line in good[: plan.get("twice", 0)]]
        for what, lines in (("output", good), ("error", bad)):
            if lines:
                seen[f"{what}_file_id"] = name = f"file-{what}-{seen['id']}"
                self.files[name] = "".join(_line(one) for one in lines).encode()
        if plan.get("gone"):
            del self.files[seen["output_file_id"]]
        if plan.get("torn") and good:
            self.files[seen["output_file_id"]] = self.files[seen["output_file_id"]][:-20]

    async def _content(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["id"])
        if content is None:
            return _error(404, "No such File object")
        await asyncio.sleep(0)
        return web.Response(body=content, content_type="application/octet-stream")


def _line(content: dict[str, Any]) -> str:
    """JSON may hold characters as they are that only Python takes for the end of a line."""
    return json.dumps(content).replace("\\u2028", "\u2028").replace("\\u0085", "\x85") + "\n"


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request_error"}}, status=status)
