-- The event stream, capped as the queue asks (wire format 8; primitive P1).

-- How many events the queue keeps, as text (P1). Written down where it is missing, as BullMQ does.
local function max_events(meta_key)
  local max_len = redis.call("HGET", meta_key, "opts.maxLenEvents")
  if not max_len then
    redis.call("HSET", meta_key, "opts.maxLenEvents", "10000")
  end
  -- A cap that is none must not make the script fail after its writes.
  if not max_len or not string.match(max_len, "^%d+$") or #max_len > 15 then
    return "10000"
  end
  return max_len
end

local trimmed = {}

-- P2, once a call and stream, before the call's first event. Those who wait for events hear of them when
-- the call ends: what is cut by then, by a queue that keeps few events or none, they never hear.
local function trim_events(events_key, meta_key)
  if not trimmed[events_key] then
    trimmed[events_key] = true
    redis.call("XTRIM", events_key, "MAXLEN", "~", max_events(meta_key))
  end
end

local function emit(events_key, meta_key, ...)
  trim_events(events_key, meta_key)
  return redis.call("XADD", events_key, "*", ...)
end
