"use strict";
// What the test workers do with a job, driven by its data:
//   ms           sleep so long
//   held         run until the key release:<queue> exists
//   block_ms     hold the event loop for so long first
//   fail_times   throw in the first n attempts
//   returns      the return value
//   steps        [name, value] pairs, done first: see STEPS
// Each run leaves two rows in the list runs:<queue>, so that a test can count what really ran; or in
// the file that LEDGER names, which no fault of Redis touches.

const fs = require("node:fs");

// worker.js may step the clock; the rows have the true time.
const now = Date.now;

// Jobs in hand, in this process.
const running = new Set();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const STEPS = {
  sleep: (_, ms) => sleep(ms),
  progress: (job, value) => job.updateProgress(value),
  log: (job, row) => job.log(row),
  data: (job, value) => job.updateData(value),
  unrecoverable: (_, text) => {
    throw Object.assign(new Error(text), { name: "UnrecoverableError" });
  },
};

function makeProcessor(redis, who) {
  const record = (job, ev) => {
    const row = JSON.stringify({
      id: job.id,
      name: job.name,
      pid: process.pid,
      worker: who,
      ats: job.attemptsStarted,
      atm: job.attemptsMade,
      ev,
      at: now(),
    });
    const file = process.env.LEDGER;
    return file ? fs.appendFileSync(file, `${row}\n`) : redis.rpush(`runs:${job.queueName}`, row);
  };

  async function run(job) {
    const data = job.data || {};
    await record(job, "start");
    for (const [step, value] of data.steps || []) await STEPS[step](job, value);
    if (data.block_ms) {
      const until = Date.now() + data.block_ms;
      while (Date.now() < until);
    }
    if (data.ms) await sleep(data.ms);
    while (data.held && !(await redis.exists(`release:${job.queueName}`))) await sleep(20);
    if (data.fail_times && job.attemptsMade < data.fail_times) {
      await record(job, "fail");
      throw new Error(data.message || `attempt ${job.attemptsMade + 1} failed on purpose`);
    }
    await record(job, "end");
    return data.returns === undefined ? null : data.returns;
  }

  return async function processor(job) {
    running.add(job);
    try {
      return await run(job);
    } finally {
      running.delete(job);
    }
  };
}

module.exports = { makeProcessor, running, sleep };
