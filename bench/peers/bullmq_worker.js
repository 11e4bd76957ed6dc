"use strict";
// A BullMQ worker that runs COUNT jobs of queue "bench" and says how long that took.
// Usage: node bullmq_worker.js PORT CONCURRENCY COUNT HANDLER MS; HANDLER is wait or compute.
const { Worker } = require("bullmq6");
const [port, concurrency, count] = process.argv.slice(2, 5).map(Number);
const handler = process.argv[5], ms = Number(process.argv[6]);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// CPU time, since the process does not always have a processor.
const spent = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1000; };
const worker = new Worker("bench", async () => {
  if (ms && handler === "wait") await sleep(ms);
  else if (ms) for (const until = spent() + ms; spent() < until;);
}, {
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
