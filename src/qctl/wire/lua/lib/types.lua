-- A key of a wrong type fails here, before anything is written; by the queue's base ("bull:q:").

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
