// Keeps the page up to date: asks the client how things stand, and shows it.

import { CallError, call, inWords, key, setKey } from "./api.js";
import { setUpAsking } from "./ask.js";
import { count, counted, duration, kinds, price, shortAccount, speed } from "./format.js";
import { element, say, showTable } from "./tables.js";

const REFRESH_MS = 5_000;
/** Rows of a table of models; whoever has more narrows them down. */
const MODELS_SHOWN = 100;
/** From so many models on there is a filter. */
const FILTER_FROM = 12;

const byId = (id) => document.getElementById(id);

/** What was shown last, so that what did not change is left alone. */
const shown = new Map();

function changed(name, value) {
  const text = JSON.stringify(value);
  if (shown.get(name) === text) {
    return false;
  }
  shown.set(name, text);
  return true;
}

function account(text) {
  return element("code", shortAccount(text), { title: text });
}

// The line on top

function showStatus({ coordinator, models_on_offer: models, providers_on_offer: providers }) {
  const offers = models === 0
    ? "nobody offers a model yet"
    : `${counted(models, "model")} from ${counted(providers, "provider")}`;
  const links = {
    joined: "Connected to the coordinator",
    away: `The coordinator does not answer (${coordinator.away_because ?? "it is away"})`,
    unknown: "The coordinator has not answered yet",
  };
  const distrust = coordinator.distrusted_because;
  const warning = distrust === null ? "" : ` · Warning: its log was caught lying: ${distrust}`;
  say(byId("status"), `${links[coordinator.state]} · ${offers}${warning}`);
}

// Models

function showModelChoice(models) {
  const chats = models.filter((model) => model.kinds.includes("chat_completions"));
  const choice = byId("model");
  const before = choice.value;
  choice.replaceChildren(...chats.map(({ id }) => element("option", id, { value: id })));
  if (chats.some(({ id }) => id === before)) {
    choice.value = before;
  }
  if (chats.length === 0) {
    choice.append(element("option", "No model is on offer", { value: "" }));
  }
}

function showModelHint(models) {
  const chosen = models.find(({ id }) => id === byId("model").value);
  say(byId("model-hint"), chosen === undefined
    ? "As soon as a provider offers a model for chat, it can be chosen here."
    : `${price(chosen.price)} (credits per million tokens) · context of ${count(chosen.context_length)} tokens`);
}

const modelColumns = [
  { label: "Model", long: true, cell: (model) => model.id },
  { label: "For", cell: (model) => kinds(model.kinds) },
  { label: "Credits per million tokens", cell: (model) => price(model.price) },
  { label: "Context", number: true, cell: (model) => count(model.context_length) },
  { label: "Providers", number: true, cell: (model) => count(model.providers) },
  { label: "First output after", number: true, cell: (model) => duration(model.first_output_ms) },
];

function showModels(state) {
  const filter = byId("model-filter").value.trim().toLowerCase();
  byId("model-filter-box").hidden = state.models.length < FILTER_FROM && filter === "";
  if (changed("choice", state.models.map(({ id, kinds }) => [id, kinds]))) {
    showModelChoice(state.models);
  }
  showModelHint(state.models);
  if (!changed("models", [state.models, filter])) {
    return;
  }
  const fitting = state.models.filter(({ id }) => id.toLowerCase().includes(filter));
  const note = byId("models-note");
  const nothing = filter === ""
    ? "Nobody offers a model at the moment. Providers come and go; this page looks again every few seconds."
    : "No model on offer has that in its name.";
  showTable(byId("models-table"), modelColumns, fitting.slice(0, MODELS_SHOWN), note, nothing);
  const known = filter === "" ? state.models_on_offer : fitting.length;
  if (known > MODELS_SHOWN) {
    note.textContent = `${MODELS_SHOWN} of ${count(known)} are shown; narrow them down above.`;
  }
}

// Providers

const conditions = {
  good: ["Good", "good"],
  busy: ["Busy: said that it has no room now", ""],
  failing: ["Failed lately: others are asked first", "bad"],
  passed_over: ["Failed too often: not asked for a while", "bad"],
  gone: ["Not on offer now", ""],
};

const providerColumns = [
  { label: "Provider", cell: (provider) => account(provider.account) },
  {
    label: "Now",
    cell: ({ condition }) => {
      const [text, name] = conditions[condition] ?? [condition, ""];
      return element("span", text, { class: name });
    },
  },
  { label: "Requests", number: true, cell: (provider) => count(provider.requests) },
  { label: "Failed", number: true, cell: (provider) => count(provider.failed) },
  { label: "First output after", number: true, cell: (provider) => duration(provider.first_output_ms) },
  { label: "Tokens per second", number: true, cell: (provider) => speed(provider.tokens_per_second) },
];

function showProviders({ providers }) {
  if (changed("providers", providers)) {
    showTable(byId("providers-table"), providerColumns, providers, byId("providers-note"),
      "Nobody was asked anything since the client started.");
  }
}

// The key

function showKeyForm(reason) {
  byId("key").hidden = false;
  byId("key-forget").hidden = key() === null;
  say(byId("key-reason"), reason);
}

function askForKey() {
  lacksKey = true;
  const had = key() !== null;
  showKeyForm("This endpoint asks for a key.");
  say(byId("key-error"), had ? "The key does not fit. Enter another one." : "");
  say(byId("status"), "This endpoint asks for a key.");
}

function setUpKeyForm() {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("key-text").value.trim();
    // What can't stand in a header can't be a key.
    if (!/^[\x21-\x7e]+$/.test(text)) {
      say(byId("key-error"), "A key has printable characters without blanks.");
      byId("key-text").focus();
      return;
    }
    setKey(text);
    byId("key-text").value = "";
    refresh();
  });
  byId("key-forget").addEventListener("click", () => {
    setKey(null);
    byId("key-text").focus();
    refresh();
  });
}

// The whole

let state = null;
/** Whether looking again makes no sense until there is another key. */
let lacksKey = false;
let looks = Promise.resolve();

function show() {
  showStatus(state);
  showModels(state);
  showProviders(state);
  say(byId("version"), `Gristmill ${state.version}`);
}

async function told(path) {
  const response = await call(path);
  return response.json();
}

async function look() {
  try {
    state = await told("/v1/page/state");
  } catch (error) {
    if (error instanceof CallError && error.needsKey) {
      askForKey();
    } else {
      say(byId("status"), inWords(error));
    }
    return;
  }
  lacksKey = false;
  if (key() === null) {
    byId("key").hidden = true;
  } else {
    showKeyForm("Your key is in use.");
    say(byId("key-error"), "");
  }
  show();
}

/** Looks once more, after the look that may be on its way: that one may have come too early. */
function refresh() {
  looks = looks.then(look, look);
  return looks;
}

async function keepRefreshed() {
  for (;;) {
    if (!document.hidden && !lacksKey) {
      await refresh();
    }
    await new Promise((resolve) => {
      setTimeout(resolve, REFRESH_MS);
    });
  }
}

byId("base-url").textContent = `${location.origin}/v1`;
byId("model").addEventListener("change", () => state !== null && showModelHint(state.models));
byId("model-filter").addEventListener("input", () => state !== null && showModels(state));
document.addEventListener("visibilitychange", () => !document.hidden && !lacksKey && refresh());
setUpKeyForm();
setUpAsking({ onEnd: refresh, onKeyNeeded: askForKey });
keepRefreshed();
