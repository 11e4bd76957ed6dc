"use strict";
// The application that a process manager runs in the tests: BullMQ workers, configured by
// environment variables.
//
//   BULLMQ          5 or 6                         (6)
//   REDIS_HOST      address of Redis               (127.0.0.1)
//   REDIS_PORT      its port                       (6379)
//   REDIS_NODES     sentinels or a cluster instead, see connection.js
//   QUEUES          queue names, comma separated   (q)
//   PREFIX          key prefix; $QUEUE in it is the queue's name  (bull)
//   CONCURRENCY     jobs at a time for each queue  (1)
//   WORKER_NAME     the workers' name              (none)
//   LOCK_MS         lockDuration
//   STALLED_MS      stalledInterval
//   MAX_STALLED     maxStalledCount
//   LEDGER          where the rows of processor.js go (Redis)
//   RECONNECT_MS    try again so soon when Redis is away (BullMQ's: up to 20 s)
//   HANDLE_SIGINT   1: let running jobs end on SIGINT, then exit
//   HANDLE_SIGTERM  1: the same on SIGTERM
//   BOOT_MS         wait so long before the workers start …
//   BOOT_IF         … only when this file exists; $INSTANCE in it is PM2's number of the instance
//   RESUME_AT_START 1: resume the queues that are paused, as many apps do
//   READY           1: tell the manager "ready" once they have started
//   CRASH_MS        throw after so long …
//   CRASH_IF        … only when this file exists, as BOOT_IF
//   EXIT_IF         after CRASH_MS, if this file exists at the start, exit with 0
//   HANG_IF         while this file exists, ignore stop signals
//   CLOCK_STEP      while this file exists, Date.now is wrong by the milliseconds in it
//   HANDLE_SIGUSR2  1: exit with 0 at once
//   DIE_IF          if this file exists, throw once CLIENT LIST has shown the workers twice
//   SOURCE_IP       the address to connect from, as a container has its own
//   SECRET_TOKEN    not used: something that must never be shown

const fs = require("node:fs");
const { clientOf, connectionTo } = require("./connection");
const { makeProcessor, sleep } = require("./processor");

const env = process.env;
if (env.SOURCE_IP) {
  // ioredis has no option for this.
  const net = require("node:net");
  const connect = net.createConnection;
  net.createConnection = (to, ...more) => connect({ ...to, localAddress: env.SOURCE_IP }, ...more);
}
if (env.CLOCK_STEP) {
  const now = Date.now;
  Date.now = () => {
    try {
      return now() + Number(fs.readFileSync(env.CLOCK_STEP, "utf8"));
    } catch {
      return now();
    }
  };
}
const { Queue, Worker } = require(`bullmq${env.BULLMQ || "6"}`);
const server = { host: env.REDIS_HOST || "127.0.0.1", port: Number(env.REDIS_PORT || 6379) };
if (env.RECONNECT_MS) server.retryStrategy = () => Number(env.RECONNECT_MS);
const connection = connectionTo(server);

/** Whether a file of BOOT_IF or CRASH_IF exists, or none is named. */
function applies(file) {
  return !file || fs.existsSync(file.replace("$INSTANCE", env.NODE_APP_INSTANCE));
}

async function main() {
  if (env.EXIT_IF && fs.existsSync(env.EXIT_IF)) {
    setTimeout(() => process.exit(0), Number(env.CRASH_MS));
  }
  if (env.CRASH_MS && applies(env.CRASH_IF)) {
    setTimeout(() => {
      throw new Error("crashing on purpose: a setting is missing");
    }, Number(env.CRASH_MS));
  }
  if (env.BOOT_MS && applies(env.BOOT_IF)) await sleep(Number(env.BOOT_MS));
  const redis = clientOf(connection);
  redis.on("error", (error) => console.error(error.message));
  const options = { connection };
  options.concurrency = Number(env.CONCURRENCY || 1);
  if (env.WORKER_NAME) options.name = env.WORKER_NAME;
  if (env.LOCK_MS) options.lockDuration = Number(env.LOCK_MS);
  if (env.STALLED_MS) options.stalledInterval = Number(env.STALLED_MS);
  if (env.MAX_STALLED) options.maxStalledCount = Number(env.MAX_STALLED);
  const optionsOf = (queue) => ({
    ...options,
    prefix: (env.PREFIX || "bull").replaceAll("$QUEUE", queue),
  });
  for (const name of env.RESUME_AT_START ? (env.QUEUES || "q").split(",") : []) {
    const queue = new Queue(name, optionsOf(name));
    if (await queue.isPaused()) await queue.resume();
  }
  const processor = makeProcessor(redis, env.WORKER_NAME || "");
  const workers = (env.QUEUES || "q").split(",").map((queue) => {
    const worker = new Worker(queue, processor, optionsOf(queue));
    worker.on("error", (error) => console.error(error.message));
    return worker;
  });

  let closing = false;
  const close = async (signal) => {
    if (closing || (env.HANG_IF && fs.existsSync(env.HANG_IF))) return;
    closing = true;
    console.log(`${signal}: closing`);
    await Promise.all(workers.map((worker) => worker.close()));
    process.exit(0);
  };
  if (env.HANDLE_SIGINT === "1") process.on("SIGINT", close);
  if (env.HANDLE_SIGTERM === "1") process.on("SIGTERM", close);
  if (env.HANDLE_SIGUSR2 === "1") process.on("SIGUSR2", () => process.exit(0));

  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  console.log(`ready ${process.pid}`);
  if (env.READY === "1" && process.send) process.send("ready");
  if (env.DIE_IF && fs.existsSync(env.DIE_IF)) {
    const before = await readings(redis);
    while ((await readings(redis)) < before + 2) await sleep(10);
    // PM2 would only log a rejected promise.
    setImmediate(() => {
      throw new Error("dying on purpose: the database is gone");
    });
  }
}

/** How often anybody has called CLIENT LIST. */
async function readings(redis) {
  const calls = /cmdstat_client\|list:calls=(\d+)/.exec(await redis.info("commandstats"));
  return calls ? Number(calls[1]) : 0;
}

main();
