// The official OpenAI SDK for Node, in its two current major versions: 7 for Node 22 and newer, 6 for older ones.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { z } from "zod";
import * as openai7 from "openai";
import { zodResponseFormat as zodResponseFormat7 } from "openai/helpers/zod";
import * as openai6 from "openai-6";
import { zodResponseFormat as zodResponseFormat6 } from "openai-6/helpers/zod";
import { Edge, eventually } from "./edge.mjs";

const QUESTION = [{ role: "user", content: "Name a colour of the sea." }];
const TOOL_QUESTION = [{ role: "user", content: "What are the tide and the weather in Aberdeen?" }];
const tool = (name, parameter) => ({
  type: "function",
  function: {
    name,
    parameters: {
      type: "object",
      properties: { [parameter]: { type: "string" } },
      required: [parameter],
      additionalProperties: false,
    },
  },
});
const TOOLS = [tool("tide", "harbour"), tool("weather", "town")];

const VERSIONS = [
  ["openai 7", openai7.OpenAI, zodResponseFormat7],
  ["openai 6", openai6.OpenAI, zodResponseFormat6],
];

for (const [version, OpenAI, zodResponseFormat] of VERSIONS) {
  describe(version, () => {
    let edge;
    let client;
    const connect = (to, options = {}) => new OpenAI({ baseURL: to.v1, apiKey: to.key, ...options });

    before(async () => {
      edge = await Edge.start();
      client = connect(edge);
    });
    after(() => edge.stop());

    test("chat answers with usage and cost", async () => {
      const answer = await client.chat.completions.create({ model: edge.model, messages: QUESTION });

      assert.match(answer.id, /^gen-/);
      assert.ok(answer.choices[0].message.content);
      assert.equal(answer.choices[0].finish_reason, "stop");
      assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
      assert.ok(answer.usage.cost > 0);
      assert.ok(answer.provider);
    });

    test("every answer names its generation", async () => {
      const { data, response } = await client.chat.completions
        .create({ model: edge.model, messages: QUESTION })
        .withResponse();

      assert.equal(response.headers.get("x-generation-id"), data.id);
    });

    test("a stream ends with usage", async () => {
      const chunks = [];
      const stream = await client.chat.completions.create({ model: edge.model, messages: QUESTION, stream: true });
      for await (const chunk of stream) chunks.push(chunk);

      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
      assert.ok(text.length > 10);
      assert.deepEqual(chunks.at(-1).choices, []);
      assert.ok(chunks.at(-1).usage.total_tokens > 0);
      assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
    });

    test("the stream helper accumulates", async () => {
      const stream = client.chat.completions.stream({ model: edge.model, messages: QUESTION });
      let text = "";
      stream.on("content", (delta) => (text += delta));

      const final = await stream.finalChatCompletion();
      assert.equal(final.choices[0].message.content, text);
      assert.ok((await stream.totalUsage()).total_tokens > 0);
    });

    test("a forced tool is called", async () => {
      const answer = await client.chat.completions.create({
        model: edge.model,
        messages: TOOL_QUESTION,
        tools: TOOLS,
        tool_choice: { type: "function", function: { name: "weather" } },
      });

      const [call, ...rest] = answer.choices[0].message.tool_calls;
      assert.deepEqual(rest, []);
      assert.equal(call.function.name, "weather");
      assert.ok("town" in JSON.parse(call.function.arguments));
      assert.equal(answer.choices[0].finish_reason, "tool_calls");
    });

    test("tools are run in parallel by the SDK's own loop", async () => {
      const called = [];
      const runnable = TOOLS.map(({ function: about }) => ({
        type: "function",
        function: {
          ...about,
          parse: JSON.parse,
          function: (input) => {
            called.push([about.name, input]);
            return "calm";
          },
        },
      }));
      const runner = client.chat.completions.runTools({
        model: edge.model,
        messages: TOOL_QUESTION,
        tools: runnable,
        parallel_tool_calls: true,
      });

      assert.ok(await runner.finalContent());
      assert.ok(called.length > 0);
    });

    test("streamed tool calls can be put together", async () => {
      const stream = client.chat.completions.stream({
        model: edge.model,
        messages: TOOL_QUESTION,
        tools: TOOLS,
        tool_choice: "required",
        parallel_tool_calls: true,
      });

      const final = await stream.finalChatCompletion();
      const calls = final.choices[0].message.tool_calls;
      assert.deepEqual(calls.map((call) => call.function.name).sort(), ["tide", "weather"]);
      for (const call of calls) JSON.parse(call.function.arguments);
    });

    test("structured output is parsed", async () => {
      const Harbour = z.object({ name: z.string(), berths: z.number().int(), languages: z.array(z.string()) });
      const answer = await client.chat.completions.parse({
        model: edge.model,
        messages: QUESTION,
        response_format: zodResponseFormat(Harbour, "harbour"),
      });

      Harbour.parse(answer.choices[0].message.parsed);
    });

    test("models are listed", async () => {
      const listed = [];
      for await (const model of client.models.list()) listed.push(model.id);

      for (const model of edge.models) assert.ok(listed.includes(model), model);
    });

    test("provider options go through as body fields", async () => {
      for (const slug of edge.hosts) {
        const answer = await client.chat.completions.create({
          model: edge.model,
          messages: QUESTION,
          provider: { order: [slug], allow_fallbacks: false },
        });
        assert.equal(bare(answer.provider), bare(slug));
      }
    });

    test("errors have their class and their type", async () => {
      const failing = (body, to = client) =>
        to.chat.completions.create({ model: edge.model, messages: QUESTION, ...body });

      await assert.rejects(failing({}, connect(edge, { apiKey: "tg-none" })), (error) => {
        assert.ok(error instanceof OpenAI.AuthenticationError);
        return error.status === 401 && error.error.metadata.error_type === "authentication";
      });
      await assert.rejects(failing({ model: "nobody/nothing" }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        return error.error.availability.code === "model_not_found";
      });
      await assert.rejects(failing({ temperature: 3 }), OpenAI.BadRequestError);
      await assert.rejects(failing({ provider: { only: ["nobody"] } }), (error) => {
        assert.ok(error instanceof OpenAI.NotFoundError);
        return error.error.availability.excluded_by.includes("allowed_providers");
      });
    });

    describe("with providers in trouble", () => {
      let own;
      const sent = [];
      const counting = (options = {}) =>
        connect(own, {
          ...options,
          fetch: async (...request) => {
            const answer = await fetch(...request);
            sent.push(answer);
            return answer;
          },
        });

      before(async () => {
        own = await Edge.start();
      });
      after(() => own.stop());

      test("leaving a stream cancels the generation", async () => {
        await own.fault("slow_stream");
        const stream = await counting().chat.completions.create({
          model: own.model,
          messages: QUESTION,
          stream: true,
        });
        let id;
        for await (const chunk of stream) {
          id = chunk.id;
          break;
        }

        const record = await eventually(async () => (await own.get(`/generation?id=${id}`))?.data);
        assert.equal(record.cancelled, true);
        await own.fault("none");
      });

      test("when every provider fails the SDK is told not to repeat", async () => {
        await own.fault("server_error");
        sent.length = 0;
        await assert.rejects(
          counting({ maxRetries: 3 }).chat.completions.create({ model: own.model, messages: QUESTION }),
          OpenAI.InternalServerError,
        );

        assert.equal(sent.length, 1);
        assert.equal(sent[0].headers.get("x-should-retry"), "false");
      });
    });
  });
}

/** Answers carry the display name, preferences take the slug: what they have in common. */
function bare(provider) {
  return provider.toLowerCase().replace(/[^a-z0-9]/g, "");
}
