// OpenRouter's own SDK for Node. It checks every answer against schemas generated from OpenRouter's API document and
// throws when one does not fit.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { OpenRouter } from "@openrouter/sdk";
import * as errors from "@openrouter/sdk/models/errors";
import { Edge } from "./edge.mjs";

const QUESTION = [{ role: "user", content: "Name a colour of the sea." }];

describe("@openrouter/sdk", () => {
  let edge;
  let client;
  const send = (chatRequest, rest = {}) =>
    client.chat.send({ chatRequest: { model: edge.model, messages: QUESTION, ...chatRequest }, ...rest });

  before(async () => {
    edge = await Edge.start();
    client = new OpenRouter({ serverURL: edge.apiV1, apiKey: edge.key });
  });
  after(() => edge.stop());

  test("chat", async () => {
    const answer = await send({ stream: false });

    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.choices[0].finishReason, "stop");
    assert.ok(answer.usage.cost > 0);
  });

  test("stream", async () => {
    const chunks = [];
    for await (const chunk of await send({ stream: true })) chunks.push(chunk);

    assert.ok(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("").length > 10);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.totalTokens > 0);
  });

  test("provider preferences", async () => {
    const answer = await send({
      provider: {
        sort: "price",
        allowFallbacks: true,
        dataCollection: "allow",
        maxPrice: { prompt: "1000", completion: "1000" },
        preferredMaxLatency: 30,
      },
      sessionId: "session-of-the-suite",
    });

    assert.ok(answer.choices[0].message.content);
  });

  test("order and router metadata", async () => {
    for (const slug of edge.hosts) {
      const answer = await send(
        { provider: { order: [slug], allowFallbacks: false } },
        { xOpenRouterMetadata: "enabled" },
      );
      const selected = answer.openrouterMetadata.endpoints.available.filter((endpoint) => endpoint.selected);
      assert.equal(selected.length, 1);
      assert.equal(answer.openrouterMetadata.attempt, 1);
    }
  });

  test("tools", async () => {
    const answer = await send({
      tools: [
        {
          type: "function",
          function: {
            name: "paint",
            parameters: { type: "object", properties: { colour: { type: "string" } }, required: ["colour"] },
          },
        },
      ],
      toolChoice: { type: "function", function: { name: "paint" } },
    });

    assert.equal(answer.choices[0].message.toolCalls[0].function.name, "paint");
  });

  test("models, endpoints, providers and generations", async () => {
    const listed = await client.models.list();
    assert.ok(listed);

    const [author, slug] = edge.model.split("/");
    assert.ok(await client.endpoints.list({ author, slug }));
    assert.ok(await client.providers.list());

    const answer = await send({});
    const record = await client.generations.getGeneration({ id: answer.id });
    assert.equal(record.data.id, answer.id);
  });

  test("errors have their class", async () => {
    await assert.rejects(send({ model: "nobody/nothing" }), errors.BadRequestResponseError);
    await assert.rejects(send({ provider: { only: ["nobody"] } }), errors.NotFoundResponseError);
    const stranger = new OpenRouter({ serverURL: edge.apiV1, apiKey: "tg-none" });
    await assert.rejects(
      stranger.chat.send({ chatRequest: { model: edge.model, messages: QUESTION } }),
      errors.UnauthorizedResponseError,
    );
  });
});
