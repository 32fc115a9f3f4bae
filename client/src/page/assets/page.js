// Keeps the page up to date: asks the client how things stand, and shows it.

import { CallError, call, inWords, key, setKey } from "./api.js";
import { setUpAsking } from "./ask.js";
import { firstDay, lastDays, spendingChart } from "./chart.js";
import {
  amount, count, counted, credits, duration, kinds, localTime, price, shortAccount, speed,
} from "./format.js";
import { hardwareColumns, hardwareRows } from "./hardware.js";
import { element, say, showFacts, showTable } from "./tables.js";

const REFRESH_MS = 5_000;
/** How many of the newest requests are shown. */
const REQUESTS_SHOWN = 30;
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

/** An element with two pieces between which alone a line may break. */
function breakable(name, first, second, attributes = {}) {
  const made = element(name, "", { class: "breakable", ...attributes });
  made.append(element("span", first), " ", element("span", second));
  return made;
}

function time(milliseconds) {
  const [day, clock] = localTime(milliseconds).split(" ");
  return breakable("time", day, clock, { datetime: new Date(milliseconds).toISOString() });
}

/** A line and a quieter one below it, which may be empty. */
function twoLines(first, second) {
  const made = element("span");
  made.append(first);
  if (second !== "") {
    made.append(" ", element("span", second, { class: "below" }));
  }
  return made;
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
  { label: "Verified", number: true, cell: (model) => count(model.verified_providers) },
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

// Spending

const dayColumns = [
  { label: "Day", cell: ({ group }) => group },
  { label: "Requests", number: true, cell: (day) => count(day.requests) },
  { label: "Failed", number: true, cell: (day) => count(day.failed) },
  { label: "Tokens in", number: true, cell: (day) => count(day.input_tokens) },
  { label: "Tokens out", number: true, cell: (day) => count(day.output_tokens) },
  { label: "Credits", number: true, cell: (day) => credits(day.cost) },
];

function showSpending(nowMs, days) {
  const last = lastDays(days, nowMs);
  if (!changed("spending", last)) {
    return;
  }
  const sum = (some) => amount(some.reduce((total, day) => total + day.cost, 0));
  showFacts(byId("spending-sums"), [
    ["Today (UTC)", sum(last.slice(-1))],
    ["Last 7 days", sum(last.slice(-7))],
    [`Last ${last.length} days`, sum(last)],
  ]);
  const busy = last.filter((day) => day.requests > 0).reverse();
  const spent = busy.some((day) => day.cost > 0);
  byId("spending-figure").hidden = !spent;
  byId("spending-details").hidden = busy.length === 0;
  if (spent) {
    byId("spending-chart").replaceChildren(...spendingChart(last));
    say(byId("spending-caption"), "Credits by day (UTC); the top line is the most that was spent on one.");
  }
  const nothing = `Nothing was asked in the last ${last.length} days.`;
  showTable(byId("days-table"), dayColumns, busy, byId("spending-note"), nothing);
}

// Providers and requests

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
  { label: "Credits", number: true, cell: (provider) => credits(provider.cost) },
  { label: "Failures", number: true, cell: (provider) => count(provider.failed) },
  { label: "First output after", number: true, cell: (provider) => duration(provider.first_output_ms) },
  { label: "Tokens per second", number: true, cell: (provider) => speed(provider.tokens_per_second) },
];

/** nginx's status for a program that went away, which the endpoint uses, too. */
const STOPPED = 499;

function outcome({ status, code }) {
  if (status < 400) {
    return element("span", "Answered", { class: "good" });
  }
  return status === STOPPED
    ? "Stopped by the program"
    : twoLines(element("span", "Failed", { class: "bad" }), `${code ?? "unknown"} (${status})`);
}

function asked({ model, kind, key }) {
  const kindOf = kind === "chat_completions" ? [] : [kinds([kind])];
  const keyOf = key === null ? [] : [`key ${key}`];
  return twoLines(model, [...kindOf, ...keyOf].join(", "));
}

function askedProviders({ providers }) {
  const list = element("span");
  providers.forEach(({ provider }, index) => list.append(index > 0 ? ", " : "", account(provider)));
  return providers.length === 0 ? "none" : list;
}

function tokens({ usage }) {
  return breakable("span", `${count(usage.input_token ?? 0)} in,`, `${count(usage.output_token ?? 0)} out`);
}

function took({ duration_ms: whole, first_token_ms: first }) {
  return twoLines(duration(whole), first === null ? "" : `first output ${duration(first)}`);
}

const requestColumns = [
  { label: "Time", cell: (request) => time(request.started_at_ms) },
  { label: "Model", long: true, cell: asked },
  { label: "Provider", cell: askedProviders },
  { label: "Tokens", number: true, cell: tokens },
  { label: "Credits", number: true, cell: (request) => credits(request.cost) },
  { label: "Took", number: true, cell: took },
  { label: "Outcome", long: true, cell: outcome },
];

function showProviders({ providers }) {
  if (changed("providers", providers)) {
    showTable(byId("providers-table"), providerColumns, providers, byId("providers-note"),
      "Nobody was asked anything in the last 30 days.");
  }
}

function showHardware({ hardware, providers_on_offer: known }) {
  if (!changed("hardware", [hardware, known])) {
    return;
  }
  const note = byId("hardware-note");
  showTable(byId("hardware-table"), hardwareColumns, hardwareRows(hardware), note, "Nobody offers anything now.");
  if (known > hardware.length) {
    note.textContent = `${count(hardware.length)} of ${count(known)} are shown, the verified ones first.`;
  }
}

function showRequests(requests) {
  if (changed("requests", requests)) {
    showTable(byId("requests-table"), requestColumns, requests, byId("requests-note"),
      "Nothing was asked yet. Try a prompt above, or point a program at this endpoint.");
  }
}

// The key

function showKeyForm(reason) {
  byId("key").hidden = false;
  byId("key-forget").hidden = key() === null;
  say(byId("key-reason"), reason);
}

function showSheets(isKnown) {
  byId("sheets").hidden = !isKnown;
  byId("sections").hidden = !isKnown;
}

function askForKey() {
  lacksKey = true;
  const had = key() !== null;
  showKeyForm("This endpoint asks for a key.");
  say(byId("key-error"), had ? "The key does not fit. Enter another one." : "");
  say(byId("status"), "This endpoint asks for a key.");
  if (!byId("sheets").hidden) {
    // What was shown was for another key's eyes, and the focus may have been in it.
    showSheets(false);
    byId("key-text").focus();
  }
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

function show({ days, requests }) {
  showStatus(state);
  showModels(state);
  showProviders(state);
  showHardware(state);
  showSpending(state.now_ms, days);
  showRequests(requests);
  say(byId("version"), `Gristmill ${state.version}`);
  showSheets(true);
}

async function told(path) {
  const response = await call(path);
  return response.json();
}

/** What was spent by day and the newest requests: those of the key, where it is a program's own. */
async function spentAndAsked() {
  const [report, requests] = await Promise.all([
    told(`/v1/usage?by=day&since=${firstDay(Date.now())}`),
    told(`/v1/usage/requests?limit=${REQUESTS_SHOWN}`),
  ]);
  return { days: report.rows, requests: requests.data };
}

async function look() {
  let usage;
  try {
    [state, usage] = await Promise.all([told("/v1/page/state"), spentAndAsked()]);
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
  show(usage);
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
