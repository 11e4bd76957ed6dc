"use strict";
// A BullMQ worker that runs COUNT jobs of queue "bench" and says how long that took.
// Usage: node bullmq_worker.js PORT CONCURRENCY COUNT SLEEP_MS
const { Worker } = require("bullmq6");
const [port, concurrency, count, sleepMs] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const worker = new Worker("bench", async () => { if (sleepMs) await sleep(sleepMs); }, {
  connection, concurrency, autorun: false,
});
let left = count;
let began, cpu;
worker.on("error", (error) => console.error(error));
worker.on("completed", () => {
  left -= 1;
  if (left) return;
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  const { user, system } = process.cpuUsage(cpu);
  console.log(JSON.stringify({ seconds, cpu_s: (user + system) / 1e6 }));
  worker.close().then(() => process.exit(0));
});
worker.waitUntilReady().then(() => {
  began = process.hrtime.bigint();
  cpu = process.cpuUsage();
  worker.run();
});
