"""An OpenAI-compatible server as an owner might run it: chat, streamed and not, and embeddings."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHAT_MODEL = "upstream-chat"
EMBEDDING_MODEL = "upstream-embedding"


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
                for name in (CHAT_MODEL, EMBEDDING_MODEL)
            ]
            return self.answer(200, {"object": "list", "data": models})
        self.answer(404, {"error": {"message": "no such page", "code": 404}})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        if self.path == "/v1/embeddings":
            inputs = request["input"] if isinstance(request["input"], list) else [request["input"]]
            data = [
                {"object": "embedding", "index": index, "embedding": [float(len(text)), 0.5]}
                for index, text in enumerate(inputs)
            ]
            usage = {"prompt_tokens": 3, "total_tokens": 3}
            return self.answer(200, {"object": "list", "data": data, "model": request["model"], "usage": usage})
        if request["messages"][-1]["content"] == "break":
            return self.answer(400, {"error": {"message": "upstream says no", "type": "invalid_request_error",
                                               "param": "messages", "code": 4711}})
        self.stream(request)

    def stream(self, request):
        words = ["You", " said", ": "] + [word + " " for word in str(request["messages"][-1]["content"]).split()]
        if request["messages"][-1]["content"] == "for ever":
            words = ["again "] * 100_000
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for index, word in enumerate(words):
                delta = {"role": "assistant", "content": word} if index == 0 else {"content": word}
                self.event(request, [{"index": 0, "delta": delta, "finish_reason": None}])
                if len(words) > 1000:
                    time.sleep(0.005)
            self.event(request, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
            if (request.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
                self.event(request, [], usage=usage)
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            self.server.disconnects += 1
            self.close_connection = True

    def event(self, request, choices, **more):
        value = {"id": "chatcmpl-upstream", "object": "chat.completion.chunk", "created": 1,
                 "model": request["model"], "choices": choices, **more}
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def start(port=0):
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.requests = []
    server.disconnects = 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    import sys

    running = start(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    print(f"an OpenAI-compatible server on {running.url}", flush=True)
    threading.Event().wait()
