"use strict";
// Adds jobs in bulk for bench/enqueue.py: node bullmq_enqueue.js BULLMQ PORT JOBS BULK. For each line on
// stdin it adds them once and prints the seconds that took, and the CPU seconds.

const { performance } = require("node:perf_hooks");
const { Queue } = require(process.argv[2]);
const [port, jobs, bulk] = process.argv.slice(3).map(Number);
(async () => {
  const queue = new Queue("bench", { connection: { host: "127.0.0.1", port } });
  await queue.waitUntilReady();
  const lines = require("node:readline").createInterface({ input: process.stdin });
  console.log("ready");
  for await (const _ of lines) {
    const cpu = process.cpuUsage(), start = performance.now();
    for (let at = 0; at < jobs; at += bulk) {
      const rows = [];
      for (let n = at; n < Math.min(at + bulk, jobs); n++) rows.push({ name: "job", data: { n } });
      await queue.addBulk(rows);
    }
    const used = process.cpuUsage(cpu);
    console.log((performance.now() - start) / 1e3, (used.user + used.system) / 1e6);
  }
  await queue.close();
})();
