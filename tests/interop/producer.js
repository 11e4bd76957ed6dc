"use strict";
// Adds a job every so often. As a program: until SIGTERM or SIGINT, and prints each id on a line of
// its own.
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
//   IDS         1: the jobs' ids are n1, n2 and so on, and a job that could not be added is added again

const { sleep } = require("./processor");

const kinds = ({ JOB_MS: ms = 50, DELAY_MS: delay = 300, MIX }) =>
  [
    ["plain", { ms }, {}],
    ["prioritized", { ms }, { priority: 5 }],
    ["delayed", { ms }, { delay }],
    ["flaky", { ms, fail_times: 1 }, { attempts: 3, backoff: { type: "fixed", delay } }],
  ].slice(0, MIX ? 4 : 1);

/** Adds jobs to a queue until ``state.stopping``. The settings are numbers. */
async function produce(queue, settings, state, tell) {
  const { EVERY_MS: every = 100, COUNT: count = Infinity } = settings;
  const each = kinds(settings);
  for (let n = 0; n < count && !state.stopping; n += 1) {
    const [name, data, options] = each[n % each.length];
    if (settings.IDS) await addSurely(queue, name, data, { ...options, jobId: `n${n + 1}` }, state, tell);
    else tell((await queue.add(name, data, options)).id);
    await sleep(every);
  }
}

/** Adds a job, again after an error: with an id of its own, it is added once. */
async function addSurely(queue, name, data, options, state, tell) {
  while (!state.stopping) {
    try {
      tell((await queue.add(name, data, options)).id);
      return;
    } catch {
      await sleep(50);
    }
  }
}

async function main() {
  const env = process.env;
  const { Queue } = require(`bullmq${env.BULLMQ || "6"}`);
  const connection = { host: "127.0.0.1", port: Number(env.REDIS_PORT || 6379) };
  const queue = new Queue(env.QUEUE || "q", { connection, prefix: env.PREFIX || "bull" });
  const state = { stopping: false };
  for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => (state.stopping = true));
  const named = ["EVERY_MS", "JOB_MS", "COUNT", "MIX", "DELAY_MS", "IDS"].filter((name) => env[name]);
  const settings = Object.fromEntries(named.map((name) => [name, Number(env[name])]));
  await produce(queue, settings, state, (id) => process.stdout.write(`${id}\n`));
  await queue.close();
}

if (require.main === module) main();

module.exports = { produce };
