"use strict";
// A BullMQ worker whose jobs return when they were started, in µs since the epoch.
// Usage: node bullmq_clock.js PORT QUEUE
const { Worker } = require("bullmq6");
const [port, queue] = process.argv.slice(2);
const { performance } = require("node:perf_hooks");
const now = async () => Math.round((performance.timeOrigin + performance.now()) * 1000);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
const worker = new Worker(queue, now, { connection });
worker.on("error", (error) => console.error(error));
process.on("SIGTERM", () => worker.close().then(() => process.exit(0)));
