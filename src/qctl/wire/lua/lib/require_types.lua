-- Fail before anything is written if a key of the queue has another type than in BullMQ.

local function require_queue_types(base)
  for _, name in ipairs({"wait", "paused", "active"}) do
    redis.call("LLEN", base .. name)
  end
  for _, name in ipairs({"prioritized", "delayed", "waiting-children", "completed", "failed",
      "marker", "repeat"}) do
    redis.call("ZCARD", base .. name)
  end
  redis.call("XLEN", base .. "events")
  redis.call("GET", base .. "pc")
end
