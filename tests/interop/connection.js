"use strict";
// How the tests' Node processes reach Redis: REDIS_NODES names sentinels ("sentinel:26379", whose master is
// "main") or nodes of a cluster ("cluster:7000,7001") by their ports on 127.0.0.1; otherwise one server does.

const Redis = require("ioredis");

const [kind, ports = ""] = (process.env.REDIS_NODES || "").split(":");
const nodes = ports.split(",").map((port) => ({ host: "127.0.0.1", port: Number(port) }));

/** BullMQ's option ``connection``; ``server`` is used if REDIS_NODES names nothing. */
function connectionTo(server) {
  const { host: _, port: __, ...options } = server;
  if (kind === "sentinel") return { ...options, sentinels: nodes, name: "main" };
  if (kind === "cluster") return new Redis.Cluster(nodes, { redisOptions: { maxRetriesPerRequest: null } });
  return server;
}

/** A client of ioredis for the same. */
function clientOf(connection) {
  return kind === "cluster" ? connection : new Redis({ ...connection, maxRetriesPerRequest: null });
}

module.exports = { clientOf, connectionTo };
