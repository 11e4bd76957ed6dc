"use strict";
// A BullMQ telemetry object that keeps its spans, for tests. The trace that it puts into a job has the
// form that the package bullmq-otel gives it: the JSON of a carrier of OpenTelemetry.

const { AsyncLocalStorage } = require("node:async_hooks");
const { randomBytes } = require("node:crypto");

function makeTelemetry() {
  const spans = [];
  // A context is {trace, span}, or undefined for none.
  const storage = new AsyncLocalStorage();
  const id = (bytes) => randomBytes(bytes).toString("hex");
  return {
    spans,
    tracer: {
      startSpan(name, { kind }, context) {
        const parent = context || storage.getStore();
        const trace = parent ? parent.trace : id(16);
        const row = { name, kind, trace, span: id(8), parent: parent ? parent.span : null };
        return {
          setSpanOnContext: () => ({ trace: row.trace, span: row.span }),
          setAttribute() {},
          setAttributes() {},
          addEvent() {},
          recordException() {},
          end: () => spans.push(row),
        };
      },
    },
    contextManager: {
      with: (context, run) => storage.run(context, run),
      active: () => storage.getStore(),
      getMetadata: ({ trace, span }) => JSON.stringify({ traceparent: `00-${trace}-${span}-01` }),
      fromMetadata(_, metadata) {
        const [, trace, span] = JSON.parse(metadata).traceparent.split("-");
        return { trace, span };
      },
    },
  };
}

module.exports = { makeTelemetry };
