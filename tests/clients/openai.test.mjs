// The stock OpenAI client (npm openai): chat completions and responses.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import {
  callQuestion, counted, embeddingModels, errorOf, key, keyWithoutCredit, lookUp, lookUpSchema, models, question,
  toolAnswer, url,
} from "./support.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const Question = z.object({ q: z.string() });
const chatTool = { type: "function", function: { name: "look_up", parameters: lookUpSchema } };
const responsesTool = { type: "function", name: "look_up", parameters: lookUpSchema, strict: true };

describe("chat completions", () => {
  const messages = [{ role: "system", content: "Be brief." }, { role: "user", content: question }];

  for (const model of models) {
    test(`${model} answers`, async () => {
      const completion = await client.chat.completions.create({ model, messages });
      assert.equal(completion.choices[0].message.content, `echo: ${question}`);
      assert.equal(completion.choices[0].finish_reason, "stop");
      assert.equal(completion.model, model);
      assert.equal(completion.usage.completion_tokens, 3);
    });

    test(`${model} streams`, async () => {
      const stream = client.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });
      const pieces = [];
      stream.on("content", (piece) => pieces.push(piece));
      const completion = await stream.finalChatCompletion();
      assert.equal(pieces.join(""), `echo: ${question}`);
      assert.ok(pieces.length > 1);
      assert.equal(completion.usage.completion_tokens, 3);
    });

    for (const stream of [false, true]) {
      test(`${model} uses a tool${stream ? " in a stream" : ""}`, async () => {
        const asked = [];
        const runner = client.chat.completions.runTools({
          model,
          stream,
          messages: [{ role: "user", content: callQuestion }],
          tools: [{
            type: "function",
            function: {
              name: "look_up",
              parameters: lookUpSchema,
              parse: JSON.parse,
              function: ({ q }) => { asked.push(q); return lookUp(q); },
            },
          }],
        });
        assert.equal(await runner.finalContent(), toolAnswer);
        assert.deepEqual(asked, [callQuestion]);
      });
    }

    test(`${model} calls the tool that is demanded`, async () => {
      const completion = await client.chat.completions.create({
        model, messages, tools: [chatTool], tool_choice: { type: "function", function: { name: "look_up" } },
      });
      assert.equal(completion.choices[0].finish_reason, "tool_calls");
      assert.deepEqual(JSON.parse(completion.choices[0].message.tool_calls[0].function.arguments), { q: question });
    });

    test(`${model} gives JSON of a schema`, async () => {
      const completion = await client.chat.completions.parse({
        model, messages, response_format: zodResponseFormat(Question, "question"),
      });
      assert.equal(typeof completion.choices[0].message.parsed.q, "string");
    });
  }

  test("a wrong key is an AuthenticationError", async () => {
    const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-gw-nobody" });
    const error = await errorOf(stranger.chat.completions.create({ model: "gpt-4o", messages }));
    assert.ok(error instanceof OpenAI.AuthenticationError, error);
  });

  test("an unknown model is a NotFoundError", async () => {
    const error = await errorOf(client.chat.completions.create({ model: "nobody", messages }));
    assert.ok(error instanceof OpenAI.NotFoundError, error);
    assert.equal(error.code, "model_not_found");
  });

  test("an exhausted quota is one request and one clear error", async () => {
    const counter = counted();
    const poor = new OpenAI({ baseURL: `${url}/v1`, apiKey: keyWithoutCredit, fetch: counter.fetch });
    const error = await errorOf(poor.chat.completions.create({ model: "gpt-4o", messages }));
    assert.ok(error instanceof OpenAI.RateLimitError, error);
    assert.equal(error.code, "insufficient_quota");
    assert.equal(counter.requests, 1);
  });
});

describe("responses", () => {
  for (const model of models) {
    test(`${model} answers`, async () => {
      const response = await client.responses.create({ model, instructions: "Be brief.", input: question });
      assert.equal(response.output_text, `echo: ${question}`);
      assert.equal(response.status, "completed");
      assert.equal(response.usage.output_tokens, 3);
    });

    test(`${model} streams`, async () => {
      const stream = client.responses.stream({ model, input: question });
      const pieces = [];
      stream.on("response.output_text.delta", ({ delta }) => pieces.push(delta));
      const response = await stream.finalResponse();
      assert.equal(pieces.join(""), `echo: ${question}`);
      assert.ok(pieces.length > 1);
      assert.equal(response.output_text, `echo: ${question}`);
    });

    for (const store of [true, false]) {
      test(`${model} uses a tool, its history ${store ? "stored" : "sent again"}`, async () => {
        const input = [{ role: "user", content: callQuestion }];
        const first = await client.responses.create({ model, input, tools: [responsesTool], store });
        const call = first.output.find((item) => item.type === "function_call");
        assert.deepEqual(JSON.parse(call.arguments), { q: callQuestion });
        const result = { type: "function_call_output", call_id: call.call_id, output: lookUp(callQuestion) };
        const rest = store
          ? { input: [result], previous_response_id: first.id }
          : { input: [...input, ...first.output, result] };
        const second = await client.responses.create({ model, tools: [responsesTool], store, ...rest });
        assert.equal(second.output_text, toolAnswer);
      });
    }

    test(`${model} remembers a conversation`, async () => {
      const { id } = await client.conversations.create({ metadata: { topic: "greetings" } });
      for (const input of [question, "And again"]) {
        const response = await client.responses.create({ model, input, conversation: id });
        assert.equal(response.output_text, `echo: ${input}`);
      }
      const items = await Array.fromAsync(client.conversations.items.list(id, { order: "asc" }));
      const texts = items.map(({ content: [{ text }] }) => text);
      assert.deepEqual(texts, [question, `echo: ${question}`, "And again", "echo: And again"]);
    });

    test(`${model} gives JSON of a schema`, async () => {
      const response = await client.responses.parse({
        model, input: question, text: { format: zodTextFormat(Question, "question") },
      });
      assert.equal(typeof response.output_parsed.q, "string");
    });
  }

  test("an exhausted quota is one request and one clear error", async () => {
    const counter = counted();
    const poor = new OpenAI({ baseURL: `${url}/v1`, apiKey: keyWithoutCredit, fetch: counter.fetch });
    const error = await errorOf(poor.responses.create({ model: "gpt-4o", input: question }));
    assert.equal(error.code, "insufficient_quota");
    assert.equal(counter.requests, 1);
  });
});

describe("embeddings", () => {
  for (const model of embeddingModels) {
    test(`${model} gives the same vectors in both encodings`, async () => {
      const asked = { model, input: ["one", "two"] };
      const packed = await client.embeddings.create(asked);
      const spelled = await client.embeddings.create({ ...asked, encoding_format: "float" });
      assert.equal(packed.data.length, 2);
      assert.deepEqual(packed.data[1].embedding, spelled.data[1].embedding.map(Math.fround));
    });
  }
});

describe("models", () => {
  test("the list has every model, and each can be looked up", async () => {
    const ids = (await Array.fromAsync(client.models.list())).map(({ id }) => id);
    for (const model of models) {
      assert.ok(ids.includes(model));
      assert.equal((await client.models.retrieve(model)).id, model);
    }
  });
});
