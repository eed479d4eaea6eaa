// The stock Anthropic client (npm @anthropic-ai/sdk): messages and the counting of their tokens.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

import {
  callQuestion, counted, errorOf, key, keyWithoutCredit, lookUp, lookUpSchema, models, question, toolAnswer, url,
} from "./support.mjs";

const client = new Anthropic({ baseURL: url, apiKey: key });
const tools = [{ name: "look_up", description: "Looks things up.", input_schema: lookUpSchema }];
const ask = (model, content = question) => ({ model, max_tokens: 100, messages: [{ role: "user", content }] });
const textOf = (message) => message.content.filter(({ type }) => type === "text").map(({ text }) => text).join("");

/** The message after the results of the tools that the first one called. */
async function afterTheTool(model, send) {
  const asked = ask(model, callQuestion);
  const first = await send({ ...asked, tools });
  assert.equal(first.stop_reason, "tool_use");
  const call = first.content.find(({ type }) => type === "tool_use");
  assert.deepEqual(call.input, { q: callQuestion });
  const result = { type: "tool_result", tool_use_id: call.id, content: lookUp(call.input.q) };
  const messages = [
    ...asked.messages, { role: "assistant", content: first.content }, { role: "user", content: [result] },
  ];
  return send({ ...asked, tools, messages });
}

describe("messages", () => {
  for (const model of models) {
    test(`${model} answers`, async () => {
      const message = await client.messages.create({ ...ask(model), system: "Be brief." });
      assert.equal(textOf(message), `echo: ${question}`);
      assert.equal(message.stop_reason, "end_turn");
      assert.equal(message.usage.output_tokens, 3);
    });

    test(`${model} streams`, async () => {
      const pieces = [];
      const stream = client.messages.stream(ask(model)).on("text", (piece) => pieces.push(piece));
      const message = await stream.finalMessage();
      assert.equal(pieces.join(""), `echo: ${question}`);
      assert.ok(pieces.length > 1);
      assert.equal(message.usage.output_tokens, 3);
    });

    test(`${model} uses a tool`, async () => {
      const message = await afterTheTool(model, (body) => client.messages.create(body));
      assert.equal(textOf(message), toolAnswer);
    });

    test(`${model} uses a tool in a stream`, async () => {
      const message = await afterTheTool(model, (body) => client.messages.stream(body).finalMessage());
      assert.equal(textOf(message), toolAnswer);
    });

    test(`${model} gives JSON of a schema`, async () => {
      const format = zodOutputFormat(z.object({ q: z.string() }));
      const message = await client.messages.parse({ ...ask(model), output_config: { format } });
      assert.equal(typeof message.parsed_output.q, "string");
    });

    test(`${model} counts tokens`, async () => {
      const counted = await client.messages.countTokens({ model, messages: ask(model).messages });
      assert.ok(counted.input_tokens > 0);
    });
  }

  test("the list has every model, and each can be looked up", async () => {
    const ids = (await Array.fromAsync(client.models.list())).map(({ id }) => id);
    for (const model of models) {
      assert.ok(ids.includes(model));
      assert.equal((await client.models.retrieve(model)).id, model);
    }
  });

  test("a wrong key is an AuthenticationError", async () => {
    const stranger = new Anthropic({ baseURL: url, apiKey: "sk-gw-nobody" });
    const error = await errorOf(stranger.messages.create(ask("claude-sonnet-5")));
    assert.ok(error instanceof Anthropic.AuthenticationError, error);
  });

  test("an unknown model is a NotFoundError", async () => {
    const error = await errorOf(client.messages.create(ask("nobody")));
    assert.ok(error instanceof Anthropic.NotFoundError, error);
  });

  test("an exhausted quota is one request and one clear error", async () => {
    const counter = counted();
    const poor = new Anthropic({ baseURL: url, apiKey: keyWithoutCredit, fetch: counter.fetch });
    const error = await errorOf(poor.messages.create(ask("claude-sonnet-5")));
    assert.equal(error.status, 402);
    assert.equal(error.error.error.type, "billing_error");
    assert.match(error.message, /quota of tokens/);
    assert.equal(counter.requests, 1);
  });
});
