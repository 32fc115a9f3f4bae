// The official Node SDK against the running proxy. Exits non-zero with the assertion that failed.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, chatModel, embeddingModel] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const ask = (content) => [{ role: "user", content }];
let passed = 0;
async function test(name, body) {
  await body();
  passed += 1;
  console.log(`ok ${passed} - ${name}`);
}

await test("streamed chat", async () => {
  const stream = await client.chat.completions.create({
    model: chatModel, messages: ask("one two three"), stream: true, stream_options: { include_usage: true },
  });
  let text = "", finish = null, usage = null;
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    assert.equal(Number.isInteger(chunk.created), true);
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "You said: one two three ");
  assert.equal(finish, "stop");
  assert.equal(usage.completion_tokens, 6);
});

await test("chat", async () => {
  const answer = await client.chat.completions.create({ model: chatModel, messages: ask("one two three") });
  assert.equal(answer.choices[0].message.content, "You said: one two three ");
  assert.ok(answer._request_id.startsWith("req_"));
});

await test("stream helper", async () => {
  const runner = client.chat.completions.stream({ model: chatModel, messages: ask("a b") });
  assert.equal(await runner.finalContent(), "You said: a b ");
});

await test("embeddings", async () => {
  const answer = await client.embeddings.create({ model: embeddingModel, input: ["four"], encoding_format: "float" });
  assert.deepEqual(answer.data[0].embedding, [4, 0.5]);
});

await test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("gristmill-guide") && ids.includes(chatModel));
});

await test("unknown model", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "no-such-model", messages: ask("x") }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
  );
});

await test("an upstream's error", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: chatModel, messages: ask("break") }),
    (error) => error.status === 400 && /upstream says no/.test(error.message),
  );
});

await test("early close of a stream", async () => {
  const stream = await client.chat.completions.create({ model: chatModel, messages: ask("for ever"), stream: true });
  let seen = 0;
  for await (const _ of stream) if (++seen === 5) break;
  assert.equal(stream.controller.signal.aborted, true);
});
