// What the tests of every client share: where the gateway is, and what is asked of it.

export const url = process.env.GATEWAY_URL;
export const key = process.env.GATEWAY_KEY;
export const keyWithoutCredit = process.env.GATEWAY_KEY_WITHOUT_CREDIT;

// One model of each provider: a client's own dialect is relayed, the others are translated.
export const models = ["gpt-4o", "claude-sonnet-5", "gemini-2.5-flash"];

export const embeddingModels = ["text-embedding-3-small", "gemini-embedding-001"];

// The upstream answers "echo: " and the question, calls the first tool with {q: question} where the question says
// "call", answers "result: " and what the tool said, and gives JSON that fits the schema it was given.
export const question = "Hello there";
export const callQuestion = "Please call the tool";
export const lookUp = (q) => `looked up ${q}`;
export const toolAnswer = `result: ${lookUp(callQuestion)}`;

export const lookUpSchema = {
  type: "object",
  properties: { q: { type: "string" } },
  required: ["q"],
  additionalProperties: false,
};

/** A fetch that counts: `requests` is how often the client really asked. */
export function counted() {
  const counter = {
    requests: 0,
    fetch: (...request) => {
      counter.requests += 1;
      return globalThis.fetch(...request);
    },
  };
  return counter;
}

/** The error that a promise ends with. */
export async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("no error came");
}
