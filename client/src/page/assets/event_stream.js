// Reads server-sent events (WHATWG HTML, section 9.2) of a `fetch` body, as far as the endpoint uses them.

/** Longest event in characters; the endpoint's lines are shorter than 128 KiB. */
const EVENT_LIMIT = 1 << 20;

/** Splits text that comes in pieces of any size into the data of events. */
export class EventReader {
  #rest = "";
  #data = [];

  /** Takes the next piece and gives the data of every event that it completes. */
  push(text) {
    this.#rest += text;
    const events = [];
    for (;;) {
      // A carriage return at the very end may be half of a pair.
      const found = /\r\n|\n|\r(?!$)/.exec(this.#rest);
      if (found === null) {
        break;
      }
      const line = this.#rest.slice(0, found.index);
      this.#rest = this.#rest.slice(found.index + found[0].length);
      this.#line(line, events);
    }
    if (this.#rest.length > EVENT_LIMIT) {
      throw new Error("the endpoint sent an event that is too long");
    }
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length > 0) {
        events.push(this.#data.join("\n"));
        this.#data = [];
      }
    } else if (line.startsWith("data:")) {
      this.#data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
    }
  }
}

/** The data of every event of a body, as they come. */
export async function* events(body) {
  const reader = new EventReader();
  for await (const piece of pieces(body.pipeThrough(new TextDecoderStream()))) {
    yield* reader.push(piece);
  }
}

// Not every browser can iterate over a stream.
async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
