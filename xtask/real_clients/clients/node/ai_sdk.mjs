// The AI SDK with its provider for OpenAI-compatible endpoints.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import {
  answer, assert, check, mill, question, run, settings, stoppedReading, weatherAnswer, weatherQuestion,
} from "./exercise.mjs";

const provider = (baseURL) =>
  createOpenAICompatible({
    name: "gristmill", baseURL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true,
  });
const rich = provider(settings.base_url);
const model = rich(settings.chat_model);
const tools = {
  weather: tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const Mill = z.object({ name: z.string(), stones: z.number().int() });
const errorOf = async (work) => {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("no error");
};

check("whole", async () => {
  const got = await generateText({ model, prompt: question, maxRetries: 0 });
  assert.equal(got.text, answer);
  assert.equal(got.finishReason, "stop");
  assert.equal(got.usage.outputTokens, 6);
});

check("streamed", async () => {
  const got = streamText({ model, prompt: question, maxRetries: 0 });
  let text = "";
  for await (const part of got.textStream) text += part;
  assert.equal(text, answer);
  assert.equal((await got.usage).outputTokens, 6);
});

check("tools", async () => {
  const got = await generateText({ model, prompt: weatherQuestion, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  assert.equal(got.text, weatherAnswer);
});

check("tools_streamed", async () => {
  const got = streamText({ model, prompt: weatherQuestion, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  assert.equal(await got.text, weatherAnswer);
});

check("structured", async () => {
  const got = await generateText({
    model, prompt: "a mill", output: Output.object({ schema: Mill }), maxRetries: 0,
  });
  assert.deepEqual(got.output, mill);
});

check("embeddings", async () => {
  const got = await embedMany({
    model: rich.embeddingModel(settings.embedding_model), values: ["four", "sixsix"], maxRetries: 0,
  });
  assert.deepEqual(got.embeddings, [[4, 0.5], [6, 0.5]]);
});

check("unknown_model", async () => {
  const error = await errorOf(generateText({ model: rich(settings.unknown_model), prompt: "x", maxRetries: 0 }));
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 404);
  assert.match(error.message, new RegExp(settings.chat_model));
});

check("no_credits", async () => {
  const poor = provider(settings.poor_base_url);
  // With its own retries: 402 must not be repeated.
  const error = await errorOf(generateText({ model: poor(settings.chat_model), prompt: "x" }));
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 402);
  assert.equal(error.isRetryable, false);
});

check("cancel", async () => {
  const abort = new AbortController();
  const got = streamText({ model, prompt: settings.endless, abortSignal: abort.signal, maxRetries: 0, onError() {} });
  let seen = 0;
  for await (const _ of got.textStream) {
    seen += 1;
    if (seen === 5) {
      stoppedReading();
      abort.abort();
      break;
    }
  }
});

await run();
