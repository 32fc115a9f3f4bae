// Numbers in words. Pure: no document, no clock.

const MICROCREDITS = 1_000_000;
const counts = new Intl.NumberFormat("en");

/** An amount of microcredits as credits, exact to the last of its six digits. */
export function credits(microcredits) {
  const whole = counts.format(Math.trunc(microcredits / MICROCREDITS));
  const rest = String(microcredits % MICROCREDITS).padStart(6, "0").replace(/0+$/, "");
  return rest === "" ? whole : `${whole}.${rest}`;
}

/** An amount with its unit. */
export function amount(microcredits) {
  return `${credits(microcredits)} ${microcredits === MICROCREDITS ? "credit" : "credits"}`;
}

/** A count with thousands apart. */
export function count(number) {
  return counts.format(number);
}

/** A count and its noun: "1 model", "2 models". */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A span of time; "not measured" where there is none. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) {
    return "not measured";
  }
  if (milliseconds < 1_000) {
    return `${Math.round(milliseconds)} ms`;
  }
  const seconds = milliseconds / 1_000;
  return seconds < 100 ? `${seconds.toFixed(1)} s` : `${count(Math.round(seconds))} s`;
}

/** Tokens per second; "not measured" where nobody knows. */
export function speed(tokensPerSecond) {
  if (tokensPerSecond === null || tokensPerSecond === undefined) {
    return "not measured";
  }
  return tokensPerSecond < 10 ? tokensPerSecond.toFixed(1) : count(Math.round(tokensPerSecond));
}

/** Bytes in gibibytes with one digit, rounded down: nobody is shown more than was shown. */
export function bytes(number) {
  return `${(Math.floor((number / 2 ** 30) * 10) / 10).toFixed(1)} GiB`;
}

/** Multiply-adds per second in words, rounded down to three digits. */
export function rate(perSecond) {
  const [unit, name] = perSecond < 1e12 ? [1e9, "billion/s"] : [1e12, "trillion/s"];
  const shown = perSecond / unit;
  const digits = shown < 10 ? 100 : shown < 100 ? 10 : 1;
  return `${counts.format(Math.floor(shown * digits) / digits)} ${name}`;
}

/** A Unix time in milliseconds on the reader's own clock, sortable by eye. */
export function localTime(milliseconds) {
  const time = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** The end of an account's name, by which people tell them apart: all begin alike. */
export function shortAccount(account) {
  return account.length > 12 ? `…${account.slice(-8)}` : account;
}

const unitNames = {
  input_token: "in",
  output_token: "out",
  gpu_millisecond: "GPU ms",
  byte_in: "bytes in",
  byte_out: "bytes out",
};

/** A price in credits: "0.25 in, 0.5 out", with what is due per request where something is. */
export function price({ constant, per_million: perMillion }) {
  const parts = Object.entries(perMillion).map(
    ([unit, coefficient]) => `${credits(coefficient)} ${unitNames[unit] ?? unit}`,
  );
  if (constant > 0) {
    parts.push(`${credits(constant)} per request`);
  }
  return parts.length === 0 ? "free" : parts.join(", ");
}

const kindNames = {
  chat_completions: "chat",
  completions: "completion",
  embeddings: "embeddings",
  audio_transcriptions: "transcription",
  audio_speech: "speech",
  image_generations: "images",
  rerank: "rerank",
};

/** What a model can be asked for. */
export function kinds(list) {
  return list.map((kind) => kindNames[kind] ?? kind.replaceAll("_", " ")).join(", ");
}

/**
 * Where the last whole sentence or line of a text ends, so that screen readers are given whole sentences.
 * Zero where none has ended.
 */
export function sentenceEnd(text) {
  const ends = /[.!?:;…]["'”’)\]]*\s|[。！？]|\n/gu;
  let end = 0;
  for (const found of text.matchAll(ends)) {
    end = found.index + found[0].length;
  }
  return end;
}
