// The AI SDK (npm ai) over each of its providers that the gateway can stand in for.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogle } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

import {
  callQuestion, counted, embeddingModels, errorOf, key, keyWithoutCredit, lookUp, models, question, url,
} from "./support.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const providers = {
  "openai chat": (options) => createOpenAI({ baseURL: `${url}/v1`, ...options }).chat,
  "openai responses": (options) => createOpenAI({ baseURL: `${url}/v1`, ...options }).responses,
  "openai-compatible": (options) =>
    createOpenAICompatible({
      name: "gateway", baseURL: `${url}/v1`, includeUsage: true, supportsStructuredOutputs: true, ...options,
    }),
  anthropic: (options) => createAnthropic({ baseURL: `${url}/v1`, ...options }),
  google: (options) => createGoogle({ baseURL: `${url}/v1beta`, ...options }),
};
const Question = z.object({ q: z.string() });
const tools = {
  look_up: tool({ inputSchema: z.object({ q: z.string() }), execute: async ({ q }) => lookUp(q) }),
};

for (const [name, provider] of Object.entries(providers)) {
  describe(name, () => {
    const modelOf = provider({ apiKey: key });

    for (const id of models) {
      const model = modelOf(id);

      test(`${id} answers`, async () => {
        const asked = { model, instructions: "Be brief.", prompt: question };
        const { text, finishReason, usage } = await generateText(asked);
        assert.equal(text, `echo: ${question}`);
        assert.equal(finishReason, "stop");
        assert.equal(usage.outputTokens, 3);
      });

      test(`${id} streams`, async () => {
        const result = streamText({ model, prompt: question });
        const pieces = [];
        for await (const piece of result.textStream) pieces.push(piece);
        assert.equal(pieces.join(""), `echo: ${question}`);
        assert.ok(pieces.length > 1);
        assert.equal((await result.usage).outputTokens, 3);
      });

      test(`${id} uses a tool`, async () => {
        const { text, steps } = await generateText({ model, tools, prompt: callQuestion, stopWhen: isStepCount(4) });
        assert.ok(text.includes(lookUp(callQuestion)), text);
        assert.equal(steps.length, 2);
      });

      test(`${id} uses a tool in a stream`, async () => {
        const result = streamText({ model, tools, prompt: callQuestion, stopWhen: isStepCount(4) });
        assert.ok((await result.text).includes(lookUp(callQuestion)));
        assert.equal((await result.steps).length, 2);
      });

      test(`${id} gives an object`, async () => {
        const { object } = await generateObject({ model, schema: Question, prompt: question });
        assert.equal(typeof object.q, "string");
      });

      test(`${id} gives an output`, async () => {
        const { output } = await generateText({ model, output: Output.object({ schema: Question }), prompt: question });
        assert.equal(typeof output.q, "string");
      });
    }

    for (const maxRetries of [0, 2]) {
      test(`an exhausted quota is a clear error with ${maxRetries} retries`, async () => {
        const counter = counted();
        const model = provider({ apiKey: keyWithoutCredit, fetch: counter.fetch })(models[0]);
        const error = await errorOf(generateText({ model, prompt: question, maxRetries }));
        assert.match(error.message, /quota of tokens/);
        assert.equal(counter.requests, 1);
      });
    }
  });
}

describe("embeddings", () => {
  const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: key });
  const google = createGoogle({ baseURL: `${url}/v1beta`, apiKey: key });

  for (const id of embeddingModels) {
    for (const [name, provider] of Object.entries({ openai, google })) {
      test(`${id} gives vectors over ${name}`, async () => {
        const { embeddings } = await embedMany({ model: provider.embeddingModel(id), values: ["one", "two"] });
        assert.equal(embeddings.length, 2);
        assert.ok(embeddings[1].every(Number.isFinite));
      });
    }
  }
});
