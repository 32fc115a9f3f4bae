// The official Node SDK.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  answer, ask, assert, check, mill, question, run, settings, stoppedReading, weather, weatherAnswer, weatherQuestion,
} from "./exercise.mjs";

const { chat_model: model } = settings;
const client = new OpenAI({ baseURL: settings.base_url, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const Mill = z.object({ name: z.string(), stones: z.number().int() });
const weatherTool = zodFunction({ name: "weather", parameters: z.object({ city: z.string() }) });

check("whole", async () => {
  const got = await client.chat.completions.create({ model, messages: ask(question) });
  assert.equal(got.choices[0].message.content, answer);
  assert.equal(got.usage.completion_tokens, 6);
});

check("streamed", async () => {
  const stream = await client.chat.completions.create({
    model, messages: ask(question), stream: true, stream_options: { include_usage: true },
  });
  let text = "", usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, answer);
  assert.equal(usage.completion_tokens, 6);
});

check("tools", async () => {
  const runner = client.chat.completions.runTools({
    model,
    messages: ask(weatherQuestion),
    tools: [{
      type: "function",
      function: {
        name: "weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
        parse: JSON.parse, function: ({ city }) => `sunny in ${city}`,
      },
    }],
  });
  assert.equal(await runner.finalContent(), weatherAnswer);
});

check("tools_streamed", async () => {
  const messages = ask(weatherQuestion);
  const first = await client.chat.completions.stream({ model, messages, tools: [weatherTool] }).finalMessage();
  assert.deepEqual(first.tool_calls[0].function.parsed_arguments, { city: "Bern" });
  messages.push(first, { role: "tool", tool_call_id: first.tool_calls[0].id, content: weather });
  const runner = client.chat.completions.stream({ model, messages, tools: [weatherTool] });
  assert.equal(await runner.finalContent(), weatherAnswer);
});

check("structured", async () => {
  const response_format = zodResponseFormat(Mill, "mill");
  const got = await client.chat.completions.parse({ model, messages: ask("a mill"), response_format });
  assert.deepEqual(got.choices[0].message.parsed, mill);
});

check("embeddings", async () => {
  const got = await client.embeddings.create({ model: settings.embedding_model, input: ["four", "sixsix"] });
  assert.deepEqual(got.data.map((item) => Array.from(item.embedding)), [[4, 0.5], [6, 0.5]]);
});

check("unknown_model", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: settings.unknown_model, messages: ask("x") }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
  );
});

check("no_credits", async () => {
  const poor = new OpenAI({ baseURL: settings.poor_base_url, apiKey: "none" });
  await assert.rejects(
    poor.chat.completions.create({ model, messages: ask("x") }),
    (error) => error.status === 402 && error.code === "insufficient_credits",
  );
});

check("cancel", async () => {
  const stream = await client.chat.completions.create({ model, messages: ask(settings.endless), stream: true });
  let seen = 0;
  for await (const _ of stream) {
    seen += 1;
    if (seen === 5) {
      stoppedReading();
      break;
    }
  }
  assert.equal(stream.controller.signal.aborted, true);
});

await run();
