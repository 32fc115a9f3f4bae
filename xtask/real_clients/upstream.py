"""An OpenAI-compatible server as an owner might run it: chat with tools and structured answers, completions, streamed
and not, and embeddings. What it answers follows from the request alone."""

import base64
import json
import re
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHAT_MODEL = "upstream-chat"
EMBEDDING_MODEL = "upstream-embedding"
# The name under which programs look for embeddings unless told otherwise.
OPENAIS_EMBEDDING_MODEL = "text-embedding-3-small"
# Prompts that begin so are answered without end.
ENDLESS = "for ever"
# Prompts that begin so are thought about first.
THINKING = "think first"
PROMPT_TOKENS = 7
# Seconds between two chunks of an endless answer.
PAUSE_SECONDS = 0.005


def example(schema, root=None):
    """A value of a JSON schema: always the same one."""
    root = root or schema
    if "$ref" in schema:
        found = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return example(found, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return example(next((one for one in schema[several] if one.get("type") != "null"), {}), root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: example(of, root) for name, of in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), root)]
    return {"string": "Bern", "integer": 7, "number": 7, "boolean": True, "null": None}[kind]


def text_of(content):
    """The text of a message, be it a string or a list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def pieces(text, size=7):
    return [text[at:at + size] for at in range(0, len(text), size)]


class Reply:
    """What a chat request is answered: text, or calls of tools."""

    def __init__(self, request):
        messages = request["messages"]
        last, tools = messages[-1], request.get("tools") or []
        said = text_of(last["content"])
        asked = next((text_of(each["content"]) for each in reversed(messages) if each["role"] == "user"), "")
        self.calls, self.words, self.pause = [], [], 0
        self.thoughts = ["Let me", " think."] if said.startswith(THINKING) else []
        choice = request.get("tool_choice", "auto")
        if said.startswith(ENDLESS):
            self.words, self.pause = ["again "] * 100_000, PAUSE_SECONDS
        elif tools and choice != "none" and last["role"] != "tool":
            named = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
            function = next(tool["function"] for tool in tools if tool["function"]["name"] == named)
            arguments = json.dumps(example(function.get("parameters") or {"type": "object"}))
            twice = "twice" in asked and request.get("parallel_tool_calls") is not False
            self.calls = [(named, arguments)] * (2 if twice else 1)
        elif last["role"] == "tool":
            self.words = [word + " " for word in f"The tool said: {said}".split()]
            self.words[-1] = self.words[-1].rstrip()
        elif (schema := self.schema(request)) is not None:
            self.words = pieces(json.dumps(example(schema)))
        else:
            self.words = ["You", " said", ": "] + [word + " " for word in said.split()]

    @staticmethod
    def schema(request):
        """The schema that the answer has to follow, wherever the program wrote it."""
        wanted = request.get("response_format") or {}
        if wanted.get("type") == "json_schema":
            return wanted["json_schema"].get("schema") or {}
        if found := (wanted.get("schema") if wanted.get("type") == "json_object" else None):
            return found
        # Some programs write it into the prompt: the first JSON object with properties is it.
        prompt = "\n".join(text_of(message["content"]) for message in request["messages"])
        for start in (match.start() for match in re.finditer(r"\{", prompt)):
            try:
                found, _ = json.JSONDecoder().raw_decode(prompt[start:])
            except ValueError:
                continue
            if isinstance(found, dict) and "properties" in found:
                return found
        return {"type": "object"} if wanted.get("type") == "json_object" else None

    @property
    def finish(self):
        return "tool_calls" if self.calls else "stop"

    def deltas(self):
        """The deltas of the answer, as vLLM sends them."""
        for index, (name, arguments) in enumerate(self.calls):
            function = {"name": name, "arguments": ""}
            yield {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}
            for piece in pieces(arguments):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
        for word in self.thoughts:
            yield {"reasoning_content": word}
        for word in self.words:
            yield {"content": word}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/v1/models":
            models = [
                {"id": name, "object": "model", "created": 1, "owned_by": "owner", "max_model_len": 4096}
                for name in (CHAT_MODEL, EMBEDDING_MODEL, OPENAIS_EMBEDDING_MODEL)
            ]
            return self.answer(200, {"object": "list", "data": models})
        if self.path == "/openapi.json":
            paths = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
            return self.answer(200, {"openapi": "3.1.0", "paths": {path: {"post": {}} for path in paths}})
        self.answer(404, {"error": {"message": "no such page", "code": 404}})

    def do_POST(self):
        try:
            self.answer_request()
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            # Nothing was sent yet: what it makes of a request comes before the headers.
            self.answer(400, {"error": {"message": f"the request has no such shape: {error!r}", "code": 400}})

    def answer_request(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        # What nodes try by themselves is no request of a program.
        if self.headers["x-request-id"] != "trial":
            self.server.requests.append(request)
        if self.path == "/v1/embeddings":
            return self.embeddings(request)
        if self.path == "/v1/completions":
            prompt = request["prompt"] if isinstance(request["prompt"], str) else str(request["prompt"][0])
            request["messages"] = [{"role": "user", "content": prompt}]
        elif self.path != "/v1/chat/completions":
            return self.answer(404, {"error": {"message": "no such page", "code": 404}})
        if request["messages"][-1]["content"] == "break":
            return self.answer(400, {"error": {"message": "upstream says no", "type": "invalid_request_error",
                                               "param": "messages", "code": 4711}})
        with self.server.lock:
            self.server.streaming += 1
        try:
            self.stream(request)
        finally:
            with self.server.lock:
                self.server.streaming -= 1

    def embeddings(self, request):
        inputs = request["input"] if isinstance(request["input"], list) else [request["input"]]
        vectors = [[float(len(text)), 0.5] for text in inputs]
        if request.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors]
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        self.answer(200, {"object": "list", "data": data, "model": request["model"], "usage": usage})

    def stream(self, request):
        reply = Reply(request)
        is_chat = self.path == "/v1/chat/completions"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        tokens = 0
        try:
            for tokens, delta in enumerate(reply.deltas(), start=1):
                if is_chat:
                    delta = {"role": "assistant", **delta} if tokens == 1 else delta
                    self.event(request, [{"index": 0, "delta": delta, "finish_reason": None}])
                else:
                    self.event(request, [{"index": 0, "text": delta["content"], "finish_reason": None}])
                if reply.pause:
                    time.sleep(reply.pause)
            last = {"delta": {}} if is_chat else {"text": ""}
            self.event(request, [{"index": 0, **last, "finish_reason": reply.finish}])
            if (request.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens,
                         "total_tokens": PROMPT_TOKENS + tokens}
                self.event(request, [], usage=usage)
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            self.server.disconnects += 1
            self.server.stopped[text_of(request["messages"][-1]["content"])] = time.monotonic()
            self.close_connection = True

    def event(self, request, choices, **more):
        kind = "chat.completion.chunk" if self.path == "/v1/chat/completions" else "text_completion"
        value = {"id": "chatcmpl-upstream", "object": kind, "created": 1, "model": request["model"],
                 "choices": choices, **more}
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def start(port=0):
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.lock = threading.Lock()
    # Every request, how many answers are being made, how often a reader went away, and when for which prompt.
    server.requests, server.streaming, server.disconnects, server.stopped = [], 0, 0, {}
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    import sys

    running = start(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    print(f"an OpenAI-compatible server on {running.url}", flush=True)
    threading.Event().wait()
