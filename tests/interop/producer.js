"use strict";
// Adds a job every so often until SIGTERM or SIGINT and prints each id on a line of its own.
//
//   BULLMQ      5 or 6                          (6)
//   REDIS_PORT  port on 127.0.0.1               (6379)
//   QUEUE       queue name                      (q)
//   PREFIX      key prefix                      (bull)
//   EVERY_MS    between two jobs                (100)
//   JOB_MS      how long a job runs             (50)
//   COUNT       stop after so many              (no limit)
//   MIX         1: in turn plain, prioritised, delayed, and failing once before it succeeds
//   DELAY_MS    delay of the delayed ones       (300)

const { sleep } = require("./processor");

const env = process.env;
const { Queue } = require(`bullmq${env.BULLMQ || "6"}`);
const connection = { host: "127.0.0.1", port: Number(env.REDIS_PORT || 6379) };
const every = Number(env.EVERY_MS || 100);
const count = Number(env.COUNT || Infinity);
const ms = Number(env.JOB_MS || 50);
const delay = Number(env.DELAY_MS || 300);

const kinds = [
  ["plain", { ms }, {}],
  ["prioritized", { ms }, { priority: 5 }],
  ["delayed", { ms }, { delay }],
  ["flaky", { ms, fail_times: 1 }, { attempts: 3, backoff: { type: "fixed", delay } }],
];

async function main() {
  const queue = new Queue(env.QUEUE || "q", { connection, prefix: env.PREFIX || "bull" });
  let stopping = false;
  const stop = () => (stopping = true);
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  for (let n = 0; n < count && !stopping; n += 1) {
    const [name, data, opts] = kinds[env.MIX === "1" ? n % kinds.length : 0];
    const job = await queue.add(name, data, opts);
    process.stdout.write(`${job.id}\n`);
    await sleep(every);
  }
  await queue.close();
}

main();
