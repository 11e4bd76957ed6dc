"use strict";
// A BullMQ client for the Python tests. Usage: node bull.js 5|6 REDIS_PORT
// Reads one JSON command a line on stdin, {seq, op, args}, and answers one JSON line,
// {seq, ok} or {seq, error}. Commands run side by side; each answer carries its seq.

const readline = require("node:readline");
const { clientOf, connectionTo } = require("./connection");
const { makeProcessor, running } = require("./processor");
const { produce } = require("./producer");
const { makeTelemetry } = require("./telemetry");

const [version, port] = process.argv.slice(2);
const { Queue, Worker, QueueEvents, FlowProducer, getNextMillis } = require(`bullmq${version}`);
const connection = connectionTo({ host: "127.0.0.1", port: Number(port) });
const redis = clientOf(connection);

const queues = new Map();
const flows = new Map();
const workers = new Map();
const producers = new Map();
const listeners = new Map();
const problems = [];
// Set by the command trace.
let telemetry;
const note = (where) => (error) => problems.push(`${where}: ${error && error.message}`);
redis.on("error", note("redis"));

function queueOf(name, prefix = "bull") {
  const key = `${prefix}:${name}`;
  if (!queues.has(key)) {
    const queue = new Queue(name, { connection, prefix, telemetry });
    queue.on("error", note(`queue ${key}`));
    queues.set(key, queue);
  }
  return queues.get(key);
}

async function eventsOf(name, prefix = "bull") {
  const key = `${prefix}:${name}`;
  if (!listeners.has(key)) {
    const seen = [];
    // From where the stream is now: "$" would be where it is at the first read, some time later.
    const [last] = await redis.xrevrange(`${key}:events`, "+", "-", "COUNT", 1);
    const options = { connection, prefix, lastEventId: last ? last[0] : "0-0" };
    const events = new QueueEvents(name, options);
    events.on("error", note(`events ${key}`));
    const emit = events.emit.bind(events);
    events.emit = (event, ...args) => {
      // "waiting:7" repeats what "waiting" says.
      if (event !== "error" && !event.includes(":")) seen.push([event, args[0] ?? {}, args[1] ?? null]);
      return emit(event, ...args);
    };
    await events.waitUntilReady();
    listeners.set(key, { events, seen });
  }
  return listeners.get(key);
}

// Something that JSON can carry, in place of BullMQ's own objects.
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    if (typeof value.asJSON === "function") {
      const { id, name, data, opts, timestamp, delay, priority, progress, returnvalue } = value;
      const { attemptsMade, attemptsStarted, stalledCounter, failedReason, stacktrace } = value;
      const { processedOn, finishedOn, processedBy, repeatJobKey, deferredFailure } = value;
      return {
        id, name, data, opts, timestamp, delay, priority, progress, returnvalue,
        attemptsMade, attemptsStarted, stalledCounter, failedReason, stacktrace,
        processedOn, finishedOn, processedBy, repeatJobKey, deferredFailure,
      };
    }
    if (value.job && Array.isArray(value.children)) {
      return { job: plain(value.job), children: plain(value.children) };
    }
  }
  return value;
}

async function jobOf(queue, id) {
  const job = await queue.getJob(id);
  if (!job) throw new Error(`no job ${id}`);
  return job;
}

const ops = {
  // Any method of Queue.
  async queue({ name, prefix, method, args }) {
    return plain(await queueOf(name, prefix)[method](...args));
  },
  // When each [pattern, time zone or null, from when (ms)] is next due, as BullMQ's workers count;
  // null: never; a text: why the pattern is not read.
  async cron({ cases }) {
    return cases.map(([pattern, tz, millis]) => {
      try {
        return getNextMillis(millis, tz === null ? { pattern } : { pattern, tz }) ?? null;
      } catch (error) {
        return error.message;
      }
    });
  },
  // Any method of one Job.
  async job({ name, prefix, id, method, args }) {
    return plain(await (await jobOf(queueOf(name, prefix), id))[method](...args));
  },
  async addFlow({ prefix = "bull", tree }) {
    if (!flows.has(prefix)) {
      const flow = new FlowProducer({ connection, prefix, telemetry });
      flow.on("error", note("flow"));
      flows.set(prefix, flow);
    }
    return plain(await flows.get(prefix).add(tree));
  },
  async startWorker({ queue, prefix = "bull", handle, options }) {
    const worker = new Worker(queue, makeProcessor(redis, options.name || handle), {
      connection,
      prefix,
      telemetry,
      ...options,
    });
    worker.on("error", note(`worker ${handle}`));
    workers.set(handle, worker);
    await worker.waitUntilReady();
  },
  async closeWorker({ handle, force = false }) {
    const worker = workers.get(handle);
    workers.delete(handle);
    if (worker) await worker.close(force);
  },
  // Add jobs until ``stopProducer``: see producer.js for the settings.
  async startProducer({ name, prefix, handle, settings }) {
    const producer = { ids: [], times: [], stopping: false };
    producers.set(handle, producer);
    const tell = (id) => {
      producer.ids.push(id);
      producer.times.push(Date.now());
    };
    producer.over = produce(queueOf(name, prefix), settings, producer, tell);
    producer.over.catch(note(`producer of ${name}`));
  },
  async produced({ handle }) {
    return producers.get(handle).ids;
  },
  // When each job was acknowledged.
  async producedAt({ handle }) {
    return producers.get(handle).times;
  },
  // Answers the ids of all jobs that it has added.
  async stopProducer({ handle }) {
    const producer = producers.get(handle);
    producer.stopping = true;
    await producer.over;
    return producer.ids;
  },
  // Trace the queues and workers that are made from now on.
  async trace() {
    telemetry = makeTelemetry();
  },
  async spans() {
    return telemetry.spans;
  },
  async listen({ queue, prefix }) {
    await eventsOf(queue, prefix);
  },
  async events({ queue, prefix }) {
    return (await eventsOf(queue, prefix)).seen;
  },
  async waitUntilFinished({ name, prefix, id, ms }) {
    const { events } = await eventsOf(name, prefix);
    return await (await jobOf(queueOf(name, prefix), id)).waitUntilFinished(events, ms);
  },
  async problems() {
    return problems;
  },
  // Close everything, for the next test; answers how many jobs are still in hand.
  async reset() {
    const listening = [...listeners.values()].map(({ events }) => events);
    await Promise.all([...workers.values()].map((worker) => worker.close(true)));
    await Promise.all([...queues.values(), ...flows.values(), ...listening].map((x) => x.close()));
    for (const map of [workers, producers, queues, flows, listeners]) map.clear();
    problems.length = 0;
    telemetry = undefined;
    return running.size;
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const { seq, op, args } = JSON.parse(line);
  let answer;
  try {
    answer = { seq, ok: (await ops[op](args)) ?? null };
  } catch (error) {
    answer = { seq, error: String((error && error.message) || error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
lines.on("close", () => process.exit(0));
