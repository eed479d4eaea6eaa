// The stock Google client (npm @google/genai): generateContent and countTokens.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ApiError, GoogleGenAI } from "@google/genai";

import {
  callQuestion, embeddingModels, errorOf, key, keyWithoutCredit, lookUp, lookUpSchema, models, question, url,
} from "./support.mjs";

const clientWith = (apiKey) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url } });
const client = clientWith(key);
const asked = { model: "gemini-2.5-flash", contents: question };
const tools = [{ functionDeclarations: [{ name: "look_up", parametersJsonSchema: lookUpSchema }] }];

describe("generateContent", () => {
  for (const model of models) {
    test(`${model} answers`, async () => {
      const answer = await client.models.generateContent({
        model, contents: question, config: { systemInstruction: "Be brief." },
      });
      assert.equal(answer.text, `echo: ${question}`);
      assert.equal(answer.candidates[0].finishReason, "STOP");
      assert.equal(answer.usageMetadata.candidatesTokenCount, 3);
    });

    test(`${model} streams`, async () => {
      const pieces = [];
      for await (const chunk of await client.models.generateContentStream({ model, contents: question })) {
        if (chunk.text) pieces.push(chunk.text);
      }
      assert.equal(pieces.join(""), `echo: ${question}`);
      assert.ok(pieces.length > 1);
    });

    test(`${model} uses a tool`, async () => {
      const chat = client.chats.create({ model, config: { tools } });
      const first = await chat.sendMessage({ message: callQuestion });
      const [call] = first.functionCalls;
      assert.deepEqual({ ...call.args }, { q: callQuestion });
      const response = { id: call.id, name: call.name, response: { output: lookUp(call.args.q) } };
      const second = await chat.sendMessage({ message: [{ functionResponse: response }] });
      assert.match(second.text, /^result: /);
      assert.ok(second.text.includes(lookUp(callQuestion)), second.text);
    });

    test(`${model} gives JSON of a schema`, async () => {
      const answer = await client.models.generateContent({
        model, contents: question, config: { responseMimeType: "application/json", responseJsonSchema: lookUpSchema },
      });
      assert.equal(typeof JSON.parse(answer.text).q, "string");
    });

    test(`${model} counts tokens`, async () => {
      const counted = await client.models.countTokens({ model, contents: question });
      assert.ok(counted.totalTokens > 0);
    });
  }

  for (const model of embeddingModels) {
    test(`${model} gives vectors`, async () => {
      const { embeddings } = await client.models.embedContent({ model, contents: ["one", "two"] });
      assert.equal(embeddings.length, 2);
      assert.ok(embeddings[1].values.every(Number.isFinite));
    });
  }

  test("the list has every model", async () => {
    const names = (await Array.fromAsync(await client.models.list())).map(({ name }) => name);
    for (const model of models) assert.ok(names.includes(`models/${model}`), `${names}`);
  });

  test("a wrong key is a 401", async () => {
    const error = await errorOf(clientWith("sk-gw-nobody").models.generateContent(asked));
    assert.ok(error instanceof ApiError, error);
    assert.equal(error.status, 401);
  });

  test("an unknown model is a 404", async () => {
    const error = await errorOf(client.models.generateContent({ model: "nobody", contents: question }));
    assert.equal(error.status, 404);
  });

  test("an exhausted quota is one clear error", async () => {
    const error = await errorOf(clientWith(keyWithoutCredit).models.generateContent(asked));
    assert.equal(error.status, 429);
    assert.match(error.message, /RESOURCE_EXHAUSTED/);
    assert.match(error.message, /quota of tokens/);
  });
});
