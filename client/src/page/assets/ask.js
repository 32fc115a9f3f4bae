// The prompt form: asks a model as any program would, and shows the answer as it comes.

import { call, eventError, inWords } from "./api.js";
import { events } from "./event_stream.js";
import { amount, count, duration, sentenceEnd, speed } from "./format.js";
import { element, say, showFacts } from "./tables.js";

const byId = (id) => document.getElementById(id);

/** Shows an answer: whole sentences in the live region, what is being written beside it. */
class AnswerView {
  #text = "";
  #read = 0;

  constructor() {
    byId("answer").replaceChildren();
    byId("answer-tail").textContent = "";
    byId("reasoning").textContent = "";
    byId("reasoning-box").hidden = true;
    byId("answer-facts").replaceChildren();
    byId("answer-box").hidden = false;
  }

  add(text) {
    this.#text += text;
    const ended = sentenceEnd(this.#text.slice(this.#read));
    this.#readOut(this.#read + ended);
  }

  reason(text) {
    byId("reasoning-box").hidden = false;
    byId("reasoning").append(text);
  }

  end() {
    this.#readOut(this.#text.length);
  }

  #readOut(end) {
    if (end > this.#read) {
      byId("answer").append(element("span", this.#text.slice(this.#read, end)));
      this.#read = end;
    }
    byId("answer-tail").textContent = this.#text.slice(end);
  }
}

/** What an answer came to, gathered from its chunks. */
class Tally {
  #began = performance.now();
  #firstMs = null;
  usage = null;
  summary = null;
  finish = null;

  firstWords() {
    this.#firstMs ??= performance.now() - this.#began;
  }

  facts() {
    const totalMs = performance.now() - this.#began;
    const facts = [];
    if (this.summary !== null) {
      facts.push(["Cost", amount(this.summary.cost)]);
    }
    if (this.usage !== null) {
      const { prompt_tokens: input, completion_tokens: output } = this.usage;
      facts.push(["Tokens", `${count(input)} in, ${count(output)} out`]);
      const writingMs = totalMs - (this.#firstMs ?? totalMs);
      if (output > 1 && writingMs >= 1) {
        facts.push(["Tokens per second", speed(((output - 1) * 1_000) / writingMs)]);
      }
    }
    facts.push(["First words after", duration(this.#firstMs)], ["In all", duration(totalMs)]);
    if (this.summary !== null) {
      // Several where one finished what another had begun.
      const paid = this.summary.providers?.map(({ provider }) => provider) ?? [this.summary.provider];
      paid.forEach((provider) => facts.push(["Provider", element("code", provider)]));
      facts.push(["Request", element("code", this.summary.request_id)]);
    }
    return facts;
  }

  ending() {
    switch (this.finish) {
      case "length":
        return "Cut off at the longest answer that was allowed.";
      case "content_filter":
        return "Ended by the provider's content filter.";
      default:
        return "Answered.";
    }
  }
}

function readChunk(chunk, view, tally) {
  tally.usage = chunk.usage ?? tally.usage;
  tally.summary = chunk.gristmill ?? tally.summary;
  for (const { delta = {}, finish_reason: finish } of chunk.choices ?? []) {
    const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
    if (reasoning !== "") {
      tally.firstWords();
      view.reason(reasoning);
    }
    if (delta.content) {
      tally.firstWords();
      view.add(delta.content);
    }
    tally.finish = finish ?? tally.finish;
  }
}

async function stream(body, signal, view, tally) {
  const response = await call("/v1/chat/completions", { method: "POST", body, signal });
  const requestId = response.headers.get("x-request-id") ?? "";
  let isWhole = false;
  for await (const data of unbroken(events(response.body), requestId)) {
    if (data === "[DONE]") {
      isWhole = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) {
      throw eventError(chunk.error, requestId);
    }
    readChunk(chunk, view, tally);
  }
  if (!isWhole) {
    throw eventError({ code: "broken_stream", message: "the answer ended before it was whole" }, requestId);
  }
}

/** The same data; a connection that breaks is an error of the endpoint's and not of this page. */
async function* unbroken(stream, requestId) {
  try {
    yield* stream;
  } catch (error) {
    if (error instanceof TypeError) {
      throw eventError({ code: "broken_stream", message: "the connection broke in the middle" }, requestId);
    }
    throw error;
  }
}

function requestBody() {
  const body = {
    model: byId("model").value,
    messages: [{ role: "user", content: byId("prompt").value }],
    stream: true,
    stream_options: { include_usage: true },
  };
  const limit = byId("output-limit").valueAsNumber;
  if (Number.isInteger(limit)) {
    body.max_completion_tokens = limit;
  }
  return body;
}

/** What is missing before anything can be asked: the field and what to say of it. */
function missing() {
  if (byId("model").value === "") {
    return [byId("model"), "There is no model to ask: nobody offers one for chat at the moment."];
  }
  if (byId("prompt").value.trim() === "") {
    return [byId("prompt"), "Write a prompt first."];
  }
  if (!byId("output-limit").checkValidity()) {
    return [byId("output-limit"), "The longest answer is a whole number of tokens from 1 to 1,000,000, or empty."];
  }
  return null;
}

/**
 * Sets the form up. `onEnd` runs after each answer, `onKeyNeeded` where the endpoint asks for a key.
 */
export function setUpAsking({ onEnd, onKeyNeeded }) {
  let running = null;

  function show(isRunning) {
    byId("ask").setAttribute("aria-disabled", String(isRunning));
    const stopHadFocus = document.activeElement === byId("stop");
    byId("stop").hidden = !isRunning;
    if (!isRunning && stopHadFocus) {
      byId("ask").focus();
    }
  }

  async function ask() {
    if (running !== null) {
      return;
    }
    const lack = missing();
    say(byId("ask-error"), lack === null ? "" : lack[1]);
    for (const field of ["model", "prompt", "output-limit"]) {
      byId(field).setAttribute("aria-invalid", String(lack !== null && lack[0].id === field));
    }
    if (lack !== null) {
      lack[0].focus();
      return;
    }
    running = new AbortController();
    show(true);
    say(byId("ask-status"), "Answering…");
    const [view, tally] = [new AnswerView(), new Tally()];
    try {
      await stream(requestBody(), running.signal, view, tally);
      say(byId("ask-status"), tally.ending());
    } catch (error) {
      if (error.name === "AbortError") {
        say(byId("ask-status"), "Stopped. You pay for what had come by then.");
      } else {
        say(byId("ask-status"), "Not answered.");
        say(byId("ask-error"), inWords(error));
        if (error.needsKey) {
          onKeyNeeded();
        }
      }
    } finally {
      view.end();
      byId("answer-box").hidden = byId("answer").textContent === "" && byId("reasoning").textContent === "";
      showFacts(byId("answer-facts"), tally.facts());
      running = null;
      show(false);
      onEnd();
    }
  }

  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      ask();
    }
  });
  byId("stop").addEventListener("click", () => running?.abort());
}
